//! What nginx has on board to say why an upstream failed: the module, or what people use today.

use t::Name;

/// One way to the answer. The first is none: it is what the others are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Way {
    /// nginx alone.
    Stock,
    /// This module: counters, evidence, a JSON line for each failure.
    Module,
    /// nginx's own log of the upstream variables, as JSON, for failures only.
    AccessLog,
    /// The lua module, writing such a line in the log phase.
    Lua,
    /// njs, with a variable for such a line.
    Njs,
}

/// The variables that say something about an upstream, and what it takes to find the request.
/// The keys are those of the module's own line where it has them.
const VARIABLES: &[(&str, &str)] = &[
    ("time", "time_iso8601"),
    ("pid", "pid"),
    ("connection", "connection"),
    ("client", "remote_addr"),
    ("server", "server_name"),
    ("host", "host"),
    ("method", "request_method"),
    ("uri", "uri"),
    ("status", "status"),
    ("request_time", "request_time"),
    ("upstream", "proxy_host"),
    ("peer", "upstream_addr"),
    ("upstream_status", "upstream_status"),
    ("connect_time", "upstream_connect_time"),
    ("header_time", "upstream_header_time"),
    ("response_time", "upstream_response_time"),
    ("response_length", "upstream_response_length"),
    ("bytes_sent", "upstream_bytes_sent"),
    ("bytes_received", "upstream_bytes_received"),
];

/// Where every way writes its lines.
pub(crate) const LOG: &str = "lines.log";

impl Way {
    /// In the order of the tables.
    pub(crate) const ALL: [Self; 5] =
        [Self::Stock, Self::Module, Self::AccessLog, Self::Lua, Self::Njs];

    /// The name on the command line and in the JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stock => "stock",
            Self::Module => "module",
            Self::AccessLog => "access_log",
            Self::Lua => "lua",
            Self::Njs => "njs",
        }
    }

    /// Main-level directives.
    pub(crate) fn main(self) -> &'static str {
        match self {
            Self::Lua => {
                "load_module /usr/lib/nginx/modules/ndk_http_module.so;\n\
                 load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;"
            }
            Self::Njs => "load_module /usr/lib/nginx/modules/ngx_http_js_module.so;",
            Self::Stock | Self::Module | Self::AccessLog => "",
        }
    }

    /// Directives in `http`; `rate` is the module's limit of lines in a second.
    pub(crate) fn http(self, rate: Option<u32>) -> String {
        // A failure that another attempt made good is one too: hence not $status.
        let failed = "map $upstream_status $failed { default 1; \"\" 0; 200 0; }";
        match self {
            Self::Stock => String::new(),
            Self::Module => {
                let rate = rate.map_or_else(String::new, |rate| format!(" rate={rate}r/s"));
                format!("upstream_diag on; upstream_diag_log {{prefix}}/{LOG}{rate};")
            }
            Self::AccessLog => {
                let keys: Vec<String> = VARIABLES
                    .iter()
                    .map(|(key, variable)| format!("\"{key}\":\"${variable}\""))
                    .collect();
                format!("log_format failures escape=json '{{{}}}';\n{failed}", keys.join(","))
            }
            Self::Lua => lua(),
            Self::Njs => format!(
                "js_path {{prefix}}; js_import failures from failures.js;\n\
                 js_set $line failures.line;\nlog_format failures escape=none '$line';\n{failed}"
            ),
        }
    }

    /// Directives in `server`: in `http` the harness has turned the access log off.
    pub(crate) fn server(self) -> String {
        match self {
            Self::Stock | Self::Module | Self::Lua => String::new(),
            Self::AccessLog | Self::Njs => {
                format!("access_log {{prefix}}/{LOG} failures if=$failed;")
            }
        }
    }

    /// A file that the configuration needs, with its text.
    pub(crate) fn file(self) -> Option<(&'static str, String)> {
        (self == Self::Njs).then(|| {
            let keys: Vec<String> =
                VARIABLES.iter().map(|(key, variable)| format!("{key}: v.{variable}")).collect();
            let text = format!(
                "function line(r) {{\n  const v = r.variables;\n  \
                 return JSON.stringify({{ {} }});\n}}\nexport default {{ line }};\n",
                keys.join(", ")
            );
            ("failures.js", text)
        })
    }
}

/// The file is opened once for each worker, as the documentation of the lua module has it.
fn lua() -> String {
    let keys: Vec<String> =
        VARIABLES.iter().map(|(key, variable)| format!("{key} = v.{variable}")).collect();
    format!(
        "lua_package_path '/usr/share/lua/5.1/?.lua;;';\n\
         init_worker_by_lua_block {{\n  \
           json = require 'cjson.safe'\n  \
           lines = io.open('{{prefix}}/{LOG}', 'a')\n  \
           lines:setvbuf('no')\n\
         }}\n\
         log_by_lua_block {{\n  \
           local v = ngx.var\n  \
           local status = v.upstream_status\n  \
           if status and ngx.re.find(status, '50[234]', 'jo') then\n    \
             lines:write(json.encode({{ {} }}), '\\n')\n  \
           end\n\
         }}",
        keys.join(", ")
    )
}

/// Which ways can be had with an nginx: lua and njs are Debian's, for Debian's nginx.
pub(crate) fn ways(nginx: Name) -> &'static [Way] {
    match nginx {
        Name::Debian => &Way::ALL,
        Name::Release | Name::Custom => &[Way::Stock, Way::Module, Way::AccessLog],
    }
}
