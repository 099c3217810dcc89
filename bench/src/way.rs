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
    /// The same with a request id, which nginx makes when it is asked for it.
    AccessLogId,
    /// The lua module, writing such a line in the log phase.
    Lua,
    /// njs, making such a line for nginx's log.
    Njs,
}

use Way::{AccessLog, AccessLogId, Lua, Module, Njs, Stock};

/// The variables that say something about an upstream or help to find the request. The keys are
/// those of the module's line where it has them.
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

/// What has to be logged. A failure that another attempt made good is one too: hence not
/// `$status`. The names of a map are looked up in a hash, which no regular expression is as
/// quick as.
const FAILED: &str = "map $upstream_status $failed { default 1; \"\" 0; 200 0; }";

impl Way {
    /// In the order of the tables.
    pub(crate) const ALL: [Self; 6] = [Stock, Module, AccessLog, AccessLogId, Lua, Njs];

    /// Those that can be had with an nginx: lua and njs are Debian's, for Debian's nginx.
    pub(crate) fn of(nginx: Name) -> &'static [Self] {
        match nginx {
            Name::Debian => &[Stock, Module, AccessLog, Lua, Njs],
            Name::Release | Name::Custom => &[Stock, Module, AccessLog, AccessLogId],
        }
    }

    /// The name on the command line and in the results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Stock => "stock",
            Module => "module",
            AccessLog => "access_log",
            AccessLogId => "access_log_id",
            Lua => "lua",
            Njs => "njs",
        }
    }

    /// Does it leave work for later, so that some requests pay for many?
    pub(crate) fn collects_garbage(self) -> bool {
        matches!(self, Lua | Njs)
    }

    /// Main-level directives.
    pub(crate) fn main(self) -> &'static str {
        match self {
            Lua => {
                "load_module /usr/lib/nginx/modules/ndk_http_module.so;\n\
                 load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;"
            }
            Njs => "load_module /usr/lib/nginx/modules/ngx_http_js_module.so;",
            Stock | Module | AccessLog | AccessLogId => "",
        }
    }

    /// Directives in `http`; `rate` is the module's limit of lines in a second, `{files}` the
    /// directory of [`Way::file`].
    pub(crate) fn http(self, rate: Option<u32>) -> String {
        match self {
            Stock => String::new(),
            Module => {
                let rate = rate.map_or_else(String::new, |rate| format!(" rate={rate}r/s"));
                format!("upstream_diag on; upstream_diag_log {{prefix}}/{LOG}{rate};")
            }
            AccessLog | AccessLogId => {
                let mut keys = fields(|key, variable| format!("\"{key}\":\"${variable}\""));
                if self == AccessLogId {
                    keys.push_str(",\"request_id\":\"$request_id\"");
                }
                format!("log_format failures escape=json '{{{keys}}}';\n{FAILED}")
            }
            // The file is opened once for each worker, as the module's documentation has it.
            Lua => format!(
                "init_worker_by_lua_block {{\n  \
                   json = require 'cjson.safe'\n  \
                   lines = io.open('{{prefix}}/{LOG}', 'a')\n  \
                   lines:setvbuf('no')\n\
                 }}\n\
                 log_by_lua_block {{\n  \
                   local v = ngx.var\n  \
                   local status = v.upstream_status\n  \
                   if status and status ~= '200' then\n    \
                     lines:write(json.encode({{ {} }}) .. '\\n')\n  \
                   end\n\
                 }}",
                fields(|key, variable| format!("{key} = v.{variable}"))
            ),
            Njs => format!(
                "js_path {{files}}; js_import failures from failures.js;\n\
                 js_set $line failures.line;\nlog_format failures escape=none '$line';\n{FAILED}"
            ),
        }
    }

    /// Directives in `server`: in `http` the harness has turned the access log off.
    pub(crate) fn server(self) -> String {
        match self {
            Stock | Module | Lua => String::new(),
            AccessLog | AccessLogId | Njs => {
                format!("access_log {{prefix}}/{LOG} failures if=$failed;")
            }
        }
    }

    /// A file that the configuration needs, with its text.
    pub(crate) fn file(self) -> Option<(&'static str, String)> {
        (self == Njs).then(|| {
            let fields = fields(|key, variable| format!("{key}: v.{variable}"));
            let text = format!(
                "function line(r) {{\n  const v = r.variables;\n  \
                 return JSON.stringify({{ {fields} }});\n}}\nexport default {{ line }};\n"
            );
            ("failures.js", text)
        })
    }
}

fn fields(field: impl Fn(&str, &str) -> String) -> String {
    let fields: Vec<String> =
        VARIABLES.iter().map(|(key, variable)| field(key, variable)).collect();
    fields.join(",")
}
