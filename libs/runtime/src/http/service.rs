//! A service's API with the pages every service has, as one poem endpoint.

use std::{
    collections::HashMap,
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use poem::{
    Body, Endpoint, EndpointExt, IntoEndpoint, IntoResponse, PathPattern, Request, Response,
    Result,
    endpoint::{BoxEndpoint, make, make_sync},
    http::{HeaderValue, Method, StatusCode, header},
    web::Redirect,
};
use poem_openapi::{
    OpenApi, OpenApiService,
    registry::{MetaApi, MetaOperation, MetaParamIn, Registry},
};

use super::{
    auth::{Access, Auth, Guard, Scope},
    connections::peer_of,
    docs::Docs,
    document::{self, About},
    events::{self, Opener},
    json::JsonBody,
    limits::{Kind, Limits},
    metrics::{self, Active, RouteMetrics},
    operation::{Declared, Operation, Rules},
    origin::{self, Origins},
    problem::Failure,
    problem_pages,
    request_id::{self, RequestId},
    site::Site,
};
use crate::{config::HttpConfig, health::Health};

/// An API, ready to be served.
pub struct HttpService<A> {
    pub(super) config: HttpConfig,
    about: About,
    api: A,
    health: Health,
    pub(super) limits: Arc<Limits>,
    pub(super) auth: Arc<Auth>,
    long_polls: HashMap<&'static str, Duration>,
    large_bodies: HashMap<&'static str, usize>,
    site: Option<Site>,
    streams: HashMap<&'static str, (Access, Opener)>,
}

/// The pages for operators alone.
pub struct AdminPages {
    pub(super) config: HttpConfig,
    health: Health,
    pub(super) limits: Arc<Limits>,
}

pub(super) type Table = HashMap<String, HashMap<Method, BoxEndpoint<'static>>>;

impl<A: OpenApi + 'static> HttpService<A> {
    /// An API with the limits of the configuration.
    pub fn new(about: About, api: A, health: Health, config: &HttpConfig) -> Self {
        let (limits, auth) = (Limits::new(config), Auth::new(config, &health));
        Self {
            config: config.clone(),
            about,
            api,
            health,
            limits,
            auth,
            long_polls: HashMap::new(),
            large_bodies: HashMap::new(),
            site: None,
            streams: HashMap::new(),
        }
    }

    /// Lets the operations of one path take longer than others.
    #[must_use]
    pub fn long_poll(mut self, path: &'static str, timeout: Duration) -> Self {
        self.long_polls.insert(path, timeout);
        self
    }

    /// Lets the bodies of one path have so many bytes. Only a few such requests are handled at a time.
    #[must_use]
    pub fn large_body(mut self, path: &'static str, bytes: usize) -> Self {
        self.large_bodies.insert(path, bytes);
        self
    }

    /// Adds a page of the service's own: `index.html` of these files at `/`, and all of them, by
    /// their paths, below `/desk/`.
    #[must_use]
    pub fn site(mut self, files: &[(&'static str, &'static [u8])]) -> Self {
        self.site = Some(Site::new(files, &self.config));
        self
    }

    /// Adds a stream of events: what `open` makes of a request, until it ends.
    #[must_use]
    pub fn stream(
        mut self,
        path: &'static str,
        access: Access,
        open: impl Fn(&Request) -> Result<BoxStream<'static, Bytes>, Failure> + Send + Sync + 'static,
    ) -> Self {
        self.streams.insert(path, (access, Box::new(open)));
        self
    }

    /// The endpoint that serves all of it.
    pub(super) fn into_endpoint(mut self) -> impl Endpoint<Output = Response> + 'static {
        let (spec, pages, config) =
            (document::served::<A>(&self.about), self.admin_pages(), self.config.clone());
        let (title, limits, auth) = (self.about.title, self.limits.clone(), self.auth.clone());
        let (site, streams) = (self.site.take(), mem::take(&mut self.streams));
        let mut table = self.operations();
        add_pages(&mut table, &spec, Docs::new(title, &config));
        if let Some(site) = site {
            add_site(&mut table, site);
        }
        for (path, (access, open)) in streams {
            let limits = limits.clone();
            let answer = fallible(move |request| events::answer(request, &limits, &open));
            add_guarded(&mut table, path, Guard::new(&auth, access), answer);
        }
        pages.add_limited(&mut table, &auth);
        front(table, &config)
    }

    /// The pages for operators, to be served at another address besides.
    pub fn admin_pages(&self) -> AdminPages {
        let (config, health, limits) =
            (self.config.clone(), self.health.clone(), self.limits.clone());
        AdminPages { config, health, limits }
    }

    /// The API's endpoints, each with its rules around it.
    fn operations(self) -> Table {
        let mut declared: HashMap<(String, Method), (String, Access, Declared)> = HashMap::new();
        for path in A::meta().into_iter().flat_map(|api| api.paths) {
            for operation in path.operations {
                let key = (shape(&path.path), operation.method.clone());
                let access = self.about.access_of(operation.operation_id);
                declared.insert(key, (path.path.clone(), access, of_request(&operation)));
            }
        }
        let mut table = Table::new();
        self.api.add_routes(&mut table);
        for (path, methods) in &mut table {
            let timeout = *self.long_polls.get(path.as_str()).unwrap_or(&self.config.timeout);
            let large_body = self.large_bodies.get(path.as_str()).copied();
            for (method, endpoint) in methods {
                let key = (shape(path), method.clone());
                let (route, access, declared) = declared.remove(&key).unwrap_or_else(|| {
                    (path.clone(), Access::Needs(Scope::Admin), Declared::default())
                });
                let guard = Guard::new(&self.auth, access);
                let (limits, body_bytes) = (self.limits.clone(), self.config.body_limit_bytes);
                let rules = Rules { limits, body_bytes, large_body, declared, timeout };
                let inner = mem::replace(endpoint, make_sync(|_| ()).map_to_response().boxed());
                *endpoint = Operation::new(inner, method, &route, guard, Some(rules)).boxed();
            }
        }
        table
    }
}

/// A path without the names of its parameters, which poem and `OpenAPI` write differently.
fn shape(path: &str) -> String {
    let segments = path.split('/').map(|s| if s.starts_with([':', '{']) { "*" } else { s });
    segments.collect::<Vec<_>>().join("/")
}

fn of_request(operation: &MetaOperation) -> Declared {
    let of = |kind| {
        let params = operation.params.iter().filter(move |param| param.in_type == kind);
        params.map(|param| param.name.clone()).collect()
    };
    let (query, headers) = (of(MetaParamIn::Query), of(MetaParamIn::Header));
    Declared { query, headers, body: operation.request.is_some() }
}

impl AdminPages {
    /// The endpoint that serves them and nothing else.
    pub(super) fn into_endpoint(self) -> impl Endpoint<Output = Response> + 'static {
        let mut table = Table::new();
        let config = self.config.clone();
        self.add(&mut table, Guard::open(), fallible(|_| metrics::page()));
        front(table, &config)
    }

    /// Adds the pages as clients get them, who are not to keep the service busy with them.
    fn add_limited(self, table: &mut Table, auth: &Arc<Auth>) {
        let limits = self.limits.clone();
        let metrics = make(move |request: Request| {
            let place = limits.enter(Kind::Page, peer_of(&request));
            async move {
                let _place = place.map_err(poem::Error::from)?;
                metrics::page_in_turn().await.map_err(poem::Error::from)
            }
        });
        self.add(table, Guard::new(auth, Access::Needs(Scope::Admin)), metrics.boxed());
    }

    fn add(self, table: &mut Table, guard: Guard, metrics: BoxEndpoint<'static>) {
        let health = self.health;
        add_page(table, "/health", fallible(|_| Ok(json(Body::from(r#"{"status":"ok"}"#)))));
        add_page(table, "/ready", fallible(move |_| Ok(ready(&health))));
        add_guarded(table, "/metrics", guard, metrics);
    }
}

fn add_page(table: &mut Table, path: &str, inner: BoxEndpoint<'static>) {
    add_guarded(table, path, Guard::open(), inner);
}

fn add_guarded(table: &mut Table, path: &str, guard: Guard, inner: BoxEndpoint<'static>) {
    let inner = Operation::new(inner, &Method::GET, path, guard, None).boxed();
    table.entry(path.to_owned()).or_default().insert(Method::GET, inner);
}

/// Puts the pages about the API into the table of routes.
fn add_pages(table: &mut Table, spec: &str, docs: Docs) {
    for (path, target) in [("/", "/docs/"), ("/docs", "/docs/"), ("/problems", "/problems/")] {
        let redirect = make_sync(move |_| Redirect::temporary(target)).map_to_response();
        add_page(table, path, redirect.boxed());
    }
    let docs = Arc::new(docs);
    for path in ["/docs/", "/docs/*path"] {
        let docs = docs.clone();
        add_page(table, path, fallible(move |request| docs.page(request)));
    }
    for path in ["/problems/", "/problems/:name"] {
        add_page(table, path, fallible(problem_pages::page));
    }
    let spec = Bytes::from(spec.to_owned());
    add_page(table, "/openapi.json", fallible(move |_| Ok(json(Body::from(spec.clone())))));
}

fn add_site(table: &mut Table, site: Site) {
    let site = Arc::new(site);
    for path in ["/", "/desk/*path"] {
        let site = site.clone();
        add_page(table, path, fallible(move |request| site.file(request)));
    }
}

fn front(table: Table, config: &HttpConfig) -> impl Endpoint<Output = Response> + use<> {
    let allow = table.iter().map(|(path, methods)| (path.clone(), allow(methods))).collect();
    let inner = OpenApiService::new(Routes(table), "", "").into_endpoint();
    Front { inner, allow, origins: Origins::new(config) }
}

fn fallible(
    handler: impl Fn(&Request) -> Result<Response, Failure> + Send + Sync + 'static,
) -> BoxEndpoint<'static> {
    make_sync(move |request| handler(&request).map_err(poem::Error::from)).boxed()
}

fn json(body: Body) -> Response {
    Response::builder().content_type("application/json").body(body)
}

fn ready(health: &Health) -> Response {
    let report = health.report();
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut response = JsonBody(report).into_response();
    response.set_status(status);
    response
}

fn allow(methods: &HashMap<Method, BoxEndpoint<'static>>) -> HeaderValue {
    let mut names: Vec<&str> = methods.keys().map(Method::as_str).collect();
    if methods.contains_key(&Method::GET) {
        names.push("HEAD");
    }
    names.sort_unstable();
    names.dedup();
    HeaderValue::from_str(&names.join(", ")).unwrap_or(HeaderValue::from_static(""))
}

/// In front of the routes: turns foreign requests away, answers for those that have no route, and
/// protects every answer.
struct Front<E> {
    inner: E,
    allow: HashMap<String, HeaderValue>,
    origins: Origins,
}

impl<E: Endpoint<Output = Response>> Endpoint for Front<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> Result<Response> {
        let started = Instant::now();
        let method = request.method().clone();
        let sent_id = request.headers().get(request_id::HEADER).cloned();
        let shared = self.origins.share(&request);
        let is_preflight = shared.as_ref().is_some_and(|shared| shared.is_preflight);
        let outcome = match self.origins.check(&request) {
            Ok(()) => self.inner.call(request).await,
            Err(failure) => Err(failure.into()),
        };
        // Operations turn their own errors into responses: another error is 404 or 405.
        let mut response = outcome.unwrap_or_else(|error| {
            self.refuse(error, &method, sent_id.as_ref(), is_preflight, started)
        });
        origin::protect(response.headers_mut());
        if let Some(shared) = shared {
            shared.allow(response.headers_mut());
        }
        Ok(response)
    }
}

impl<E> Front<E> {
    fn refuse(
        &self,
        error: poem::Error,
        method: &Method,
        sent_id: Option<&HeaderValue>,
        is_preflight: bool,
        started: Instant,
    ) -> Response {
        let _active = Active::enter();
        let route = error.data::<PathPattern>().map(|pattern| pattern.0.clone());
        let route = route.as_deref();
        let id = RequestId::accept(sent_id);
        let mut response = Failure::from(error).respond(Some(&id));
        if response.status() == StatusCode::METHOD_NOT_ALLOWED
            && let Some(allow) = route.and_then(|route| self.allow.get(route))
        {
            if is_preflight {
                response = StatusCode::NO_CONTENT.into_response();
            }
            response.headers_mut().insert(header::ALLOW, allow.clone());
        }
        response.headers_mut().insert(request_id::HEADER, id.into_header());
        RouteMetrics::new(method, route.unwrap_or("unmatched")).observe(response.status(), started);
        response
    }
}

/// The API as poem-openapi is to route it: endpoints only, the document is made elsewhere.
struct Routes(Table);

impl OpenApi for Routes {
    fn meta() -> Vec<MetaApi> {
        Vec::new()
    }

    fn register(_: &mut Registry) {}

    fn add_routes(self, table: &mut Table) {
        table.extend(self.0);
    }
}
