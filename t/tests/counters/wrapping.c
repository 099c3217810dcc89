/*
 * A module as third parties write them: it puts a function of its own around
 * u->finalize_request, and keeps the one before it in the request's context. When it does that says
 * a macro: WRAP_AT_INIT, in peer.init, which it replaces in every group; WRAP_AROUND_INIT, there
 * before the one it replaces is called, and after that again; WRAP_AT_GET, in peer.get for every
 * attempt; WRAP_AT_HEADER, in a header filter. Where its own function is in place it leaves it.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>


typedef struct {
    ngx_http_upstream_srv_conf_t      *group;
    ngx_http_upstream_init_peer_pt     init;
} wrapped_group_t;

typedef struct {
    ngx_http_request_t                *request;
    void                             (*finalize)(ngx_http_request_t *r, ngx_int_t rc);
    ngx_event_get_peer_pt              get;
    ngx_event_free_peer_pt             free;
    void                              *data;
    ngx_uint_t                         ends;
} wrapped_request_t;


static ngx_int_t wrap_filter(ngx_conf_t *cf);
static ngx_int_t wrap_groups(ngx_cycle_t *cycle);

static ngx_uint_t        ngroups;
static wrapped_group_t  *groups;

static ngx_http_output_header_filter_pt  next_header_filter;

static ngx_http_module_t  ngx_http_wrapping_module_ctx = {
    NULL,
    wrap_filter,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};

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

    if (wrapped->ends++) {
        ngx_log_error(NGX_LOG_ALERT, r->connection->log, 0, "wrapping: ended again");
    }

    wrapped->finalize(r, rc);
}


static ngx_int_t
wrap(ngx_http_request_t *r)
{
    wrapped_request_t  *wrapped = ngx_http_get_module_ctx(r, ngx_http_wrapping_module);

    if (r->upstream->finalize_request == finalize) {
        return NGX_OK;
    }

    if (wrapped == NULL) {
        wrapped = ngx_pcalloc(r->pool, sizeof(wrapped_request_t));
        if (wrapped == NULL) {
            return NGX_ERROR;
        }

        wrapped->request = r;
        ngx_http_set_ctx(r, wrapped, ngx_http_wrapping_module);
    }

    wrapped->finalize = r->upstream->finalize_request;
    r->upstream->finalize_request = finalize;

    return NGX_OK;
}


static ngx_int_t
header_filter(ngx_http_request_t *r)
{
#ifdef WRAP_AT_HEADER
    if (r->upstream && wrap(r) != NGX_OK) {
        return NGX_ERROR;
    }
#endif

    return next_header_filter(r);
}


static ngx_int_t
wrap_filter(ngx_conf_t *cf)
{
    next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = header_filter;

    return NGX_OK;
}


#ifdef WRAP_AT_GET

static ngx_int_t
get_peer(ngx_peer_connection_t *pc, void *data)
{
    wrapped_request_t  *wrapped = data;

    return wrap(wrapped->request) == NGX_OK ? wrapped->get(pc, wrapped->data) : NGX_ERROR;
}


static void
free_peer(ngx_peer_connection_t *pc, void *data, ngx_uint_t state)
{
    wrapped_request_t  *wrapped = data;

    wrapped->free(pc, wrapped->data, state);
}

#endif


static ngx_int_t
init_peer(ngx_http_request_t *r, ngx_http_upstream_srv_conf_t *us)
{
    ngx_int_t   rc;
    ngx_uint_t  i;

    for (i = 0; i < ngroups && groups[i].group != us; i++) { /* void */ }

#ifdef WRAP_AROUND_INIT
    if (wrap(r) != NGX_OK) {
        return NGX_ERROR;
    }
#endif

    rc = groups[i].init(r, us);
    if (rc != NGX_OK) {
        return rc;
    }

#if defined(WRAP_AT_INIT) || defined(WRAP_AROUND_INIT) || defined(WRAP_AT_GET)
    rc = wrap(r);
#endif

#ifdef WRAP_AT_GET
    if (rc == NGX_OK) {
        ngx_peer_connection_t  *pc = &r->upstream->peer;
        wrapped_request_t      *wrapped = ngx_http_get_module_ctx(r, ngx_http_wrapping_module);

        wrapped->get = pc->get;
        wrapped->free = pc->free;
        wrapped->data = pc->data;
        pc->get = get_peer;
        pc->free = free_peer;
        pc->data = wrapped;
    }
#endif

    return rc;
}


static ngx_int_t
wrap_groups(ngx_cycle_t *cycle)
{
    ngx_uint_t                       i;
    ngx_http_upstream_srv_conf_t   **uscfp;
    ngx_http_upstream_main_conf_t   *umcf;

    umcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_upstream_module);
    uscfp = umcf->upstreams.elts;
    ngroups = 0;

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
