//! `ngx_conf_t`: what a directive is given, and what it can make.

use std::mem::size_of;
use std::ptr::{self, NonNull, addr_of, addr_of_mut};
use std::slice;

use nginx_sys::{
    NGX_HTTP_VAR_NOCACHEABLE, NGX_LOG_EMERG, NGX_LOG_WARN, NGX_OK, ngx_array_push,
    ngx_conf_log_error, ngx_conf_open_file, ngx_conf_t, ngx_http_add_variable,
    ngx_http_compile_complex_value, ngx_http_compile_complex_value_t, ngx_http_complex_value_t,
    ngx_http_conf_ctx_t, ngx_http_core_loc_conf_t, ngx_http_core_main_conf_t, ngx_http_core_module,
    ngx_http_handler_pt, ngx_http_phases_NGX_HTTP_LOG_PHASE, ngx_http_variable_t, ngx_int_t,
    ngx_parse_size, ngx_pcalloc, ngx_str_t, ngx_syslog_peer_t, ngx_syslog_process_conf,
};
use ngx::core::NGX_CONF_OK;

use super::keepalive::KeepaliveTimeout;
use super::module;
use super::output::{Condition, OpenFile, Syslog};
use super::string;
use super::watch::Groups;
use crate::directives::{ConfError, LocConf, MainConf};

/// Index of a variable (`ngx_http_get_variable_index`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct VariableIndex(pub(super) usize);

/// The configuration being read.
pub(crate) struct Conf<'a> {
    raw: &'a mut ngx_conf_t,
}

impl<'a> Conf<'a> {
    /// # Safety
    /// `cf` is what nginx gives a configuration callback, used by nobody else meanwhile.
    pub(super) unsafe fn from_raw(cf: *mut ngx_conf_t) -> Option<Conf<'a>> {
        // SAFETY: by the caller's contract.
        unsafe { cf.as_mut() }.map(|raw| Conf { raw })
    }

    pub(super) fn raw(&mut self) -> &mut ngx_conf_t {
        self.raw
    }

    /// The words of the directive, its name first.
    pub(crate) fn words(&self) -> Vec<&'static [u8]> {
        // SAFETY: while a directive is handled, `args` is an array of ngx_str_t whose texts live
        // in the cycle's pool, as long as the configuration.
        unsafe {
            let Some(args) = self.raw.args.as_ref() else { return Vec::new() };
            slice::from_raw_parts(args.elts.cast::<ngx_str_t>(), args.nelts)
                .iter()
                .map(|word| string::bytes(word))
                .collect()
        }
    }

    /// The module's configuration of the http block.
    pub(crate) fn main_conf(&mut self) -> Option<&mut MainConf> {
        // SAFETY: inside http{}, `ctx` is an ngx_http_conf_ctx_t, with what create_main_conf made.
        // The borrow of self keeps a second reference from being made.
        unsafe {
            let ctx = self.raw.ctx.cast::<ngx_http_conf_ctx_t>().as_ref()?;
            (*ctx.main_conf.add(module::this().ctx_index)).cast::<MainConf>().as_mut()
        }
    }

    /// The module's configuration of the block that the directive stands in.
    pub(crate) fn loc_conf(&mut self) -> Option<&mut LocConf> {
        // SAFETY: as for main_conf(), with create_loc_conf.
        unsafe {
            let ctx = self.raw.ctx.cast::<ngx_http_conf_ctx_t>().as_ref()?;
            (*ctx.loc_conf.add(module::this().ctx_index)).cast::<LocConf>().as_mut()
        }
    }

    /// Reports an error of the configuration, with the file and line nginx is at.
    pub(crate) fn error(&mut self, error: &ConfError) {
        self.report(NGX_LOG_EMERG, error);
    }

    /// Reports what nginx can start with all the same.
    pub(crate) fn warn(&mut self, error: &ConfError) {
        self.report(NGX_LOG_WARN, error);
    }

    fn report(&mut self, level: u32, error: &ConfError) {
        let text = error.to_string();
        // SAFETY: the format takes a length and that many bytes.
        unsafe {
            ngx_conf_log_error(
                level as usize,
                self.raw,
                0,
                c"%*s".as_ptr(),
                text.len(),
                text.as_ptr(),
            );
        }
    }

    /// Opens a file with the cycle: nginx makes it relative to the prefix, opens it once however
    /// often it is named, and reopens it on USR1.
    pub(crate) fn open_file(&mut self, path: &'static [u8]) -> Option<OpenFile> {
        let mut name = string::from_static(path);
        // SAFETY: the cycle is being made; nginx copies the name's pointer, and the text lives in
        // the cycle's pool.
        NonNull::new(unsafe { ngx_conf_open_file(self.raw.cycle, &mut name) }).map(OpenFile)
    }

    /// Parses the word of the directive that starts with `syslog:`. nginx reports what is wrong
    /// with it.
    pub(crate) fn open_syslog(&mut self) -> Option<Syslog> {
        // SAFETY: allocated from the cycle's pool and zeroed, as access_log does; nginx takes the
        // parameters from the directive's second word and keeps pointers into the pool.
        unsafe {
            let peer = ngx_pcalloc(self.raw.pool, size_of::<ngx_syslog_peer_t>());
            let peer = NonNull::new(peer.cast::<ngx_syslog_peer_t>())?;
            let done = ngx_syslog_process_conf(self.raw, peer.as_ptr());
            ptr::eq(done, NGX_CONF_OK).then_some(Syslog(peer))
        }
    }

    /// Compiles a value with variables. nginx reports what is wrong with it.
    pub(crate) fn compile(&mut self, value: &'static [u8]) -> Option<Condition> {
        let mut text = string::from_static(value);
        // SAFETY: zeros are valid for both structures; the compiled value lives in the pool, and
        // nginx copies what it needs of the other.
        unsafe {
            let compiled = ngx_pcalloc(self.raw.pool, size_of::<ngx_http_complex_value_t>());
            let compiled = NonNull::new(compiled.cast::<ngx_http_complex_value_t>())?;
            let mut ccv: ngx_http_compile_complex_value_t = std::mem::zeroed();
            ccv.cf = self.raw;
            ccv.value = &mut text;
            ccv.complex_value = compiled.as_ptr();
            (ngx_http_compile_complex_value(&mut ccv) == NGX_OK as ngx_int_t)
                .then_some(Condition(compiled))
        }
    }

    /// Index of a variable that the configuration uses, if it does.
    pub(crate) fn used_variable(&mut self, name: &[u8]) -> Option<VariableIndex> {
        let variables = &self.core_main_conf()?.variables;
        // SAFETY: the array of the variables that have an index (ngx_http_get_variable_index): NULL
        // while there is none.
        let used = unsafe {
            match variables.elts.is_null() {
                true => &[],
                false => slice::from_raw_parts(
                    variables.elts.cast::<ngx_http_variable_t>(),
                    variables.nelts,
                ),
            }
        };
        // SAFETY: names in the configuration.
        used.iter().position(|used| unsafe { string::bytes(&used.name) } == name).map(VariableIndex)
    }

    /// Defines a variable; `at` is its place in `present::VARIABLES`.
    pub(crate) fn add_variable(&mut self, name: &'static [u8], at: usize) -> bool {
        let mut name = string::from_static(name);
        // SAFETY: nginx copies the name. The value changes while a request goes on, so it must not
        // be cached.
        unsafe {
            let added =
                ngx_http_add_variable(self.raw, &mut name, NGX_HTTP_VAR_NOCACHEABLE as usize);
            let Some(variable) = added.as_mut() else { return false };
            variable.get_handler = Some(super::variable::get);
            variable.data = at;
        }
        true
    }

    /// Where upstream blocks have their `keepalive_timeout`.
    pub(crate) fn keepalive_timeout(&self) -> Option<KeepaliveTimeout> {
        // SAFETY: the cycle being made has its modules before its configuration is read
        // (ngx_init_cycle).
        unsafe { KeepaliveTimeout::find(self.raw.cycle.as_ref()?) }
    }

    /// Watches the upstream requests of every group of servers.
    pub(crate) fn watch_upstreams(&mut self) -> Groups {
        Groups::wrap(self.raw)
    }

    /// Puts the module's handler into the log phase.
    pub(crate) fn add_log_handler(&mut self) -> bool {
        let Some(core) = self.core_main_conf() else { return false };
        // SAFETY: an initialized array for each phase that takes handlers (ngx_http_init_phases).
        unsafe {
            let log = ngx_http_phases_NGX_HTTP_LOG_PHASE as usize;
            let Some(phase) = core.phases.get_mut(log) else { return false };
            let place = ngx_array_push(addr_of_mut!(phase.handlers)).cast::<ngx_http_handler_pt>();
            if place.is_null() {
                return false;
            }
            place.write(Some(super::hooks::log_phase));
        }
        true
    }

    /// Makes the status handler the content handler of the location.
    pub(crate) fn set_status_handler(&mut self) {
        if let Some(clcf) = self.core_loc_conf() {
            clcf.handler = Some(super::response::status);
        }
    }

    /// Puts a tap in front of the location's `error_log`. False if memory is short.
    pub(crate) fn tap_error_log(&mut self) -> bool {
        let Some(mut heads) = self.main_conf().map(|main| std::mem::take(&mut main.heads)) else {
            return false;
        };
        let clcf = self.core_loc_conf().map(ptr::from_mut);
        // SAFETY: the location's core configuration is not part of what the heads or self own.
        let installed = clcf.is_none_or(|clcf| unsafe { heads.install(self.raw, &mut *clcf) });
        if let Some(main) = self.main_conf() {
            main.heads = heads;
        }
        installed
    }

    fn core_main_conf(&mut self) -> Option<&mut ngx_http_core_main_conf_t> {
        // SAFETY: as for main_conf(), of the core module.
        unsafe {
            let ctx = self.raw.ctx.cast::<ngx_http_conf_ctx_t>().as_ref()?;
            let core = &*addr_of!(ngx_http_core_module);
            (*ctx.main_conf.add(core.ctx_index)).cast::<ngx_http_core_main_conf_t>().as_mut()
        }
    }

    fn core_loc_conf(&mut self) -> Option<&mut ngx_http_core_loc_conf_t> {
        // SAFETY: as for loc_conf(), of the core module.
        unsafe {
            let ctx = self.raw.ctx.cast::<ngx_http_conf_ctx_t>().as_ref()?;
            let core = &*addr_of!(ngx_http_core_module);
            (*ctx.loc_conf.add(core.ctx_index)).cast::<ngx_http_core_loc_conf_t>().as_mut()
        }
    }
}

/// A size as nginx writes it (`2m`, `512k`), bytes.
pub(crate) fn parse_size(word: &'static [u8]) -> Option<usize> {
    let mut text = string::from_static(word);
    // SAFETY: reads the text and nothing else.
    usize::try_from(unsafe { ngx_parse_size(&mut text) }).ok()
}
