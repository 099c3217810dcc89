//! `ngx_http_upstream_diag_module`: says why an upstream failed.
//!
//! nginx fails → `observe` → `diagnosis` → `record` → `present`.

use std::ffi::{CStr, c_char};

use nginx_sys::{ngx_command_t, ngx_http_module_t, ngx_module_t};

use crate::directives::contexts;
use crate::ffi::command::{directive, http_module, module};
use crate::ffi::module::Table;

mod directives;
mod ffi;
mod observe;
mod present;
mod record;

static mut DIRECTIVES: [ngx_command_t; 6] = [
    directive::<directives::UpstreamDiag>(c"upstream_diag", contexts::UPSTREAM_DIAG),
    directive::<directives::UpstreamDiagZone>(c"upstream_diag_zone", contexts::ZONE),
    directive::<directives::UpstreamDiagLog>(c"upstream_diag_log", contexts::LOG),
    directive::<directives::UpstreamDiagStatus>(c"upstream_diag_status", contexts::STATUS),
    directive::<directives::UpstreamDiagQuery>(c"upstream_diag_query", contexts::QUERY),
    ngx_command_t::empty(),
];

static mut HTTP_MODULE: ngx_http_module_t = http_module();

/// The module, as nginx finds it through the tables below.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "nginx's own way of naming modules")]
pub static mut ngx_http_upstream_diag_module: ngx_module_t =
    module(&raw const HTTP_MODULE, (&raw const DIRECTIVES).cast());

const NAME: &CStr = c"ngx_http_upstream_diag_module";

/// The modules of this library.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "the name is nginx's")]
pub static ngx_modules: Table<ngx_module_t, 2> =
    Table([&raw const ngx_http_upstream_diag_module, std::ptr::null()]);

/// Their names.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "the name is nginx's")]
pub static ngx_module_names: Table<c_char, 2> = Table([NAME.as_ptr(), std::ptr::null()]);

/// Where among nginx's modules it goes: before the first of those named behind it. In front of the
/// log module, so that when a line is in the access log the record is in its place too; the core
/// module, whose merged `error_log` is tapped, comes before either.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "the name is nginx's")]
pub static ngx_module_order: Table<c_char, 3> =
    Table([NAME.as_ptr(), c"ngx_http_log_module".as_ptr(), std::ptr::null()]);
