//! The tables of a module: its directives and its configuration callbacks.

use std::ffi::{CStr, c_char, c_void};
use std::ptr::{self, NonNull};

use nginx_sys::{
    NGX_ERROR, NGX_HTTP_LOC_CONF_OFFSET, NGX_HTTP_MODULE, NGX_OK, ngx_command_t, ngx_conf_t,
    ngx_cycle_t, ngx_http_conf_ctx_t, ngx_http_module, ngx_http_module_t, ngx_int_t, ngx_module_t,
    ngx_pool_cleanup_add, ngx_pool_t, ngx_str_t, ngx_uint_t,
};
use ngx::core::{NGX_CONF_ERROR, NGX_CONF_OK};

use super::conf::Conf;
use super::guard::{guard, report_panics_to_nginx};
use super::{filter, log, module};
use crate::directives::{self, ConfError, LocConf, MainConf};

/// A directive.
pub(crate) trait Directive {
    /// Takes the directive's words.
    fn set(cf: &mut Conf<'_>) -> Result<(), ConfError>;
}

/// An entry of the table of directives. `contexts` says where it may stand and how many
/// parameters it takes (`NGX_HTTP_*_CONF`, `NGX_CONF_*`).
pub(crate) const fn directive<D: Directive>(name: &'static CStr, contexts: u32) -> ngx_command_t {
    let mut command = ngx_command_t::empty();
    command.name =
        ngx_str_t { len: name.count_bytes(), data: name.as_ptr().cast_mut().cast::<u8>() };
    command.type_ = contexts as ngx_uint_t;
    command.set = Some(set::<D>);
    command.conf = NGX_HTTP_LOC_CONF_OFFSET;
    command
}

/// `ngx_command_t.set`.
unsafe extern "C" fn set<D: Directive>(
    cf: *mut ngx_conf_t,
    _: *mut ngx_command_t,
    _: *mut c_void,
) -> *mut c_char {
    guard(conf_error(), || {
        // SAFETY: nginx calls it with the configuration being read.
        let Some(mut cf) = (unsafe { Conf::from_raw(cf) }) else { return conf_error() };
        match D::set(&mut cf) {
            Ok(()) => NGX_CONF_OK,
            // nginx completes it: "NAME" directive is duplicate in FILE:LINE.
            Err(ConfError::Duplicate) => c"is duplicate".as_ptr().cast_mut(),
            Err(ConfError::Reported) => conf_error(),
            Err(error) => {
                cf.error(&error);
                conf_error()
            }
        }
    })
}

fn conf_error() -> *mut c_char {
    NGX_CONF_ERROR.cast()
}

/// The module's callbacks for the http block.
pub(crate) const fn http_module() -> ngx_http_module_t {
    // SAFETY: every field is an optional function, for which zeros are "none".
    let mut table: ngx_http_module_t = unsafe { std::mem::zeroed() };
    table.preconfiguration = Some(preconfiguration);
    table.postconfiguration = Some(postconfiguration);
    table.create_main_conf = Some(create_main_conf);
    table.init_main_conf = Some(init_main_conf);
    table.create_loc_conf = Some(create_loc_conf);
    table.merge_loc_conf = Some(merge_loc_conf);
    table
}

/// The module itself.
pub(crate) const fn module(
    http: *const ngx_http_module_t,
    directives: *const ngx_command_t,
) -> ngx_module_t {
    let mut module = ngx_module_t::default();
    module.ctx = http.cast_mut().cast();
    module.commands = directives.cast_mut();
    module.type_ = NGX_HTTP_MODULE as ngx_uint_t;
    module.init_module = Some(init_module);
    module.init_process = Some(init_process);
    module
}

fn done(succeeded: bool) -> ngx_int_t {
    if succeeded { NGX_OK as ngx_int_t } else { NGX_ERROR as ngx_int_t }
}

unsafe extern "C" fn preconfiguration(cf: *mut ngx_conf_t) -> ngx_int_t {
    guard(done(false), || {
        // SAFETY: nginx calls it with the configuration being read; so for all below.
        let cf = unsafe { Conf::from_raw(cf) };
        done(cf.is_some_and(|mut cf| directives::before(&mut cf)))
    })
}

unsafe extern "C" fn postconfiguration(cf: *mut ngx_conf_t) -> ngx_int_t {
    guard(done(false), || {
        // SAFETY: nginx calls it with the configuration being read; so for all below.
        let cf = unsafe { Conf::from_raw(cf) };
        done(cf.is_some_and(|mut cf| directives::after(&mut cf)))
    })
}

unsafe extern "C" fn create_main_conf(cf: *mut ngx_conf_t) -> *mut c_void {
    // SAFETY: as above; the pool is that of the cycle being made.
    guard(ptr::null_mut(), || unsafe { put((*cf).pool, MainConf::default()) })
}

unsafe extern "C" fn create_loc_conf(cf: *mut ngx_conf_t) -> *mut c_void {
    // SAFETY: as above.
    guard(ptr::null_mut(), || unsafe { put((*cf).pool, LocConf::default()) })
}

unsafe extern "C" fn init_main_conf(cf: *mut ngx_conf_t, _: *mut c_void) -> *mut c_char {
    guard(conf_error(), || {
        // SAFETY: as above.
        let done =
            unsafe { Conf::from_raw(cf) }.is_some_and(|mut cf| directives::complete(&mut cf));
        if done { NGX_CONF_OK } else { conf_error() }
    })
}

unsafe extern "C" fn merge_loc_conf(
    cf: *mut ngx_conf_t,
    parent: *mut c_void,
    child: *mut c_void,
) -> *mut c_char {
    guard(conf_error(), || {
        // SAFETY: parent and child are two different results of create_loc_conf.
        let confs =
            unsafe { (parent.cast::<LocConf>().as_ref(), child.cast::<LocConf>().as_mut()) };
        if let (Some(parent), Some(child)) = confs {
            child.merge(parent);
        }
        // SAFETY: as above. cf->ctx is that of the block whose configuration is merged into.
        let done = unsafe { Conf::from_raw(cf) }.is_some_and(|mut cf| directives::merged(&mut cf));
        if done { NGX_CONF_OK } else { conf_error() }
    })
}

/// Moves a value to a pool, which drops it when it ends. NULL if memory is short.
///
/// # Safety
/// `pool` is a live pool.
pub(super) unsafe fn put<T>(pool: *mut ngx_pool_t, value: T) -> *mut c_void {
    // SAFETY: by the caller's contract; the cleanup is filled before nginx can run it.
    unsafe {
        let cleanup = ngx_pool_cleanup_add(pool, 0);
        if cleanup.is_null() {
            return ptr::null_mut();
        }
        let value = Box::into_raw(Box::new(value)).cast();
        (*cleanup).handler = Some(drop_value::<T>);
        (*cleanup).data = value;
        value
    }
}

unsafe extern "C" fn drop_value<T>(value: *mut c_void) {
    // SAFETY: made by Box::into_raw in put(), and nginx runs a cleanup once.
    guard((), || drop(unsafe { Box::from_raw(value.cast::<T>()) }));
}

/// The module's configuration of a cycle's http block. `None` where there is no such block.
///
/// # Safety
/// `cycle` is a cycle whose configuration was read.
unsafe fn main_conf(cycle: *mut ngx_cycle_t) -> Option<NonNull<MainConf>> {
    // SAFETY: by the caller's contract. Each module has a place in the array of configurations.
    unsafe {
        let http = &*ptr::addr_of!(ngx_http_module);
        let ctx = (*(*cycle).conf_ctx.add(http.index)).cast::<ngx_http_conf_ctx_t>().as_ref()?;
        NonNull::new((*ctx.main_conf.add(module::this().ctx_index)).cast::<MainConf>())
    }
}

/// Runs when the configuration is complete and nginx will use it, in the master.
unsafe extern "C" fn init_module(cycle: *mut ngx_cycle_t) -> ngx_int_t {
    // The one before ends soon, whatever becomes of this.
    // SAFETY: NULL is none.
    unsafe { module::use_conf(ptr::null()) };
    guard((), || {
        // SAFETY: nginx calls it with the new cycle, before any request.
        let Some(main) = (unsafe { main_conf(cycle) }) else { return };
        // SAFETY: as above, nobody else uses it yet.
        let begun = unsafe { &mut *main.as_ptr() };
        // SAFETY: as above.
        begun.heads.complete(unsafe { &*cycle });
        begun.memory = begun.zone.and_then(|zone| zone.memory());
        directives::begin(begun);
        // SAFETY: it lives in the cycle, and gives itself up when that ends.
        unsafe { module::use_conf(main.as_ptr()) };
    });
    NGX_OK as ngx_int_t
}

/// Runs in each worker before it serves.
unsafe extern "C" fn init_process(cycle: *mut ngx_cycle_t) -> ngx_int_t {
    guard((), || {
        report_panics_to_nginx();
        // SAFETY: nginx calls it with its cycle, before any request; nobody changes it now.
        if unsafe { main_conf(cycle) }.is_some_and(|main| unsafe { main.as_ref() }.is_wanted()) {
            filter::install();
            // SAFETY: as above.
            log::learn_from_connections(unsafe { &*cycle });
        }
    });
    NGX_OK as ngx_int_t
}
