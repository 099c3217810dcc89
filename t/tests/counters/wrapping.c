/*
 * A module as third parties write them: it replaces peer.init of every group, and in it puts a
 * function of its own around u->finalize_request. It keeps the function in the request's context.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>


typedef struct {
    ngx_http_upstream_srv_conf_t      *group;
    ngx_http_upstream_init_peer_pt     init;
} wrapped_group_t;

typedef struct {
    void                             (*finalize)(ngx_http_request_t *r, ngx_int_t rc);
} wrapped_request_t;


static ngx_int_t wrap_groups(ngx_cycle_t *cycle);

static ngx_uint_t        ngroups;
static wrapped_group_t  *groups;

static ngx_http_module_t  ngx_http_wrapping_module_ctx;

ngx_module_t  ngx_http_wrapping_module = {
    NGX_MODULE_V1,
    &ngx_http_wrapping_module_ctx,
    NULL,
    NGX_HTTP_MODULE,
    NULL,
    NULL,
    wrap_groups,
    NULL,
    NULL,
    NULL,
    NULL,
    NGX_MODULE_V1_PADDING
};


static void
finalize(ngx_http_request_t *r, ngx_int_t rc)
{
    wrapped_request_t  *wrapped = ngx_http_get_module_ctx(r, ngx_http_wrapping_module);

    wrapped->finalize(r, rc);
}


static ngx_int_t
init_peer(ngx_http_request_t *r, ngx_http_upstream_srv_conf_t *us)
{
    ngx_int_t           rc;
    ngx_uint_t          i;
    wrapped_request_t  *wrapped;

    for (i = 0; i < ngroups && groups[i].group != us; i++) { /* void */ }

    rc = groups[i].init(r, us);
    if (rc != NGX_OK) {
        return rc;
    }

    wrapped = ngx_palloc(r->pool, sizeof(wrapped_request_t));
    if (wrapped == NULL) {
        return NGX_ERROR;
    }

    wrapped->finalize = r->upstream->finalize_request;
    r->upstream->finalize_request = finalize;
    ngx_http_set_ctx(r, wrapped, ngx_http_wrapping_module);

    return NGX_OK;
}


static ngx_int_t
wrap_groups(ngx_cycle_t *cycle)
{
    ngx_uint_t                       i;
    ngx_http_upstream_srv_conf_t   **uscfp;
    ngx_http_upstream_main_conf_t   *umcf;

    umcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_upstream_module);
    uscfp = umcf->upstreams.elts;

    groups = ngx_pcalloc(cycle->pool, umcf->upstreams.nelts * sizeof(wrapped_group_t));
    if (groups == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < umcf->upstreams.nelts; i++) {
        if (uscfp[i]->peer.init == NULL) {
            continue;
        }

        groups[ngroups].group = uscfp[i];
        groups[ngroups].init = uscfp[i]->peer.init;
        ngroups++;
        uscfp[i]->peer.init = init_peer;
    }

    return NGX_OK;
}


/* What nginx's configure writes for a dynamic module. */

ngx_module_t  *ngx_modules[] = { &ngx_http_wrapping_module, NULL };
char          *ngx_module_names[] = { "ngx_http_wrapping_module", NULL };
char          *ngx_module_order[] = { NULL };
