//! Passes on what `nginx-sys` found out about the nginx that the module is built for.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(nginx_upstream_zone)");
    println!("cargo::rustc-check-cfg=cfg(nginx_ssl)");
    println!("cargo::rustc-check-cfg=cfg(nginx_http_cache)");
    println!("cargo::rerun-if-env-changed=DEP_NGINX_FEATURES");
    let features = std::env::var("DEP_NGINX_FEATURES").unwrap_or_default();
    let has = |name| features.split(',').any(|feature| feature.trim() == name);
    // A cfg is named for what nginx can do, not for a version: users build against any.
    if has("http_upstream_zone") {
        println!("cargo::rustc-cfg=nginx_upstream_zone");
    }
    if has("http_cache") {
        println!("cargo::rustc-cfg=nginx_http_cache");
    }
    // Only with this does nginx speak TLS to upstreams; with `compat` alone ngx_connection_t has the
    // pointer, but what it points to is not defined (ngx_connection.h, ngx_event_openssl.h).
    if has("http_ssl") {
        println!("cargo::rustc-cfg=nginx_ssl");
    }
    println!("cargo::rerun-if-env-changed=DEP_NGINX_VERSION_NUMBER");
    let number = std::env::var("DEP_NGINX_VERSION_NUMBER").ok().and_then(|n| n.parse::<u32>().ok());
    let version = match number {
        Some(n) => format!("{}.{}.{}", n / 1_000_000, n / 1_000 % 1_000, n % 1_000),
        None => "unknown".to_owned(),
    };
    println!("cargo::rustc-env=NGINX_VERSION={version}");
    // On macOS a module's undefined symbols must be left to the loader. The target's system
    // counts, not that of the host that runs this script.
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("macos") {
        println!("cargo::rustc-link-arg=-undefined");
        println!("cargo::rustc-link-arg=dynamic_lookup");
    }
}
