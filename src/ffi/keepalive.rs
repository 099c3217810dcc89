//! `keepalive_timeout` of an upstream block, which `ngx_http_upstream_keepalive_module` keeps in a
//! structure of its own, private to its source file.
//!
//! Its layout is not copied: the module's public table of directives says where in it the value of
//! the directive is stored. Nor is the module's symbol used, as nginx may have been built without.

use std::mem::{align_of, offset_of};
use std::slice;

use nginx_sys::{
    NGX_HTTP_MODULE, NGX_HTTP_UPS_CONF, ngx_command_t, ngx_conf_set_msec_slot, ngx_cycle_t,
    ngx_http_conf_ctx_t, ngx_module_t, ngx_msec_t,
};

use super::string;
use super::upstream::Upstream;

const MODULE: &[u8] = b"ngx_http_upstream_keepalive_module";
const DIRECTIVE: &[u8] = b"keepalive_timeout";

/// Where the value is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeepaliveTimeout {
    /// The module's place among the configurations of a block.
    module: usize,
    /// The value's in that of the module.
    offset: usize,
}

impl KeepaliveTimeout {
    /// Looks it up among the modules of a configuration.
    ///
    /// # Safety
    /// `cycle` has its modules (`ngx_cycle_modules`).
    pub(super) unsafe fn find(cycle: &ngx_cycle_t) -> Option<KeepaliveTimeout> {
        // SAFETY: `modules` is an array of modules_n pointers to modules, each with a static name,
        // or the name of a dynamic one, which lives as long as the module.
        let modules = unsafe { slice::from_raw_parts(cycle.modules, cycle.modules_n) };
        let is_it = |module: &&ngx_module_t| {
            // SAFETY: as above.
            module.type_ == NGX_HTTP_MODULE as usize
                && unsafe { string::c_bytes(module.name) } == Some(MODULE)
        };
        // SAFETY: as above.
        let module = modules.iter().filter_map(|module| unsafe { module.as_ref() }).find(is_it)?;
        let mut command: *const ngx_command_t = module.commands;
        // SAFETY: NULL, or an array of commands that ends with one without a name
        // (ngx_null_command).
        while let Some(known) = unsafe { command.as_ref() }.filter(|known| known.name.len > 0) {
            // SAFETY: a static name.
            if unsafe { string::bytes(&known.name) } == DIRECTIVE {
                return is_time_in_block(known).then_some(KeepaliveTimeout {
                    module: module.ctx_index,
                    offset: known.offset,
                });
            }
            // SAFETY: the one with a name is not the last.
            command = unsafe { command.add(1) };
        }
        None
    }
}

/// Whether nginx stores an `ngx_msec_t` at the command's offset in the configuration that the
/// module has of an `upstream` block: that is what its own setter does.
fn is_time_in_block(command: &ngx_command_t) -> bool {
    let setter = command.set.map(|set| set as usize);
    setter == Some(ngx_conf_set_msec_slot as *const () as usize)
        && command.conf == offset_of!(ngx_http_conf_ctx_t, srv_conf)
        && command.type_ & NGX_HTTP_UPS_CONF as usize != 0
        && command.offset.is_multiple_of(align_of::<ngx_msec_t>())
}

impl Upstream<'_> {
    /// `keepalive_timeout` of the upstream block, milliseconds. `None` without a block, and without
    /// `keepalive` in it.
    pub(crate) fn keepalive_timeout(&self, place: KeepaliveTimeout) -> Option<u64> {
        let confs = self.group()?.srv_conf;
        if confs.is_null() {
            return None;
        }
        // SAFETY: not NULL, which it is for a group that is no block: an array with the configuration of every
        // HTTP module (ngx_http_upstream), of which `module` is one. That of a module whose
        // directive is set with ngx_conf_set_msec_slot has an ngx_msec_t at the command's offset.
        let time = unsafe {
            let conf = *confs.add(place.module);
            if conf.is_null() {
                return None;
            }
            conf.cast::<u8>().add(place.offset).cast::<ngx_msec_t>().read()
        };
        // NGX_CONF_UNSET_MSEC.
        (time != ngx_msec_t::MAX).then_some(time as u64)
    }
}
