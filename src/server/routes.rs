//! The routes and what they answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use futures_util::stream;
use serde_json::{Value, json};

use super::access::{self, Access, ClientKey};
use super::body::{self, Received};
use super::completion::{self, Chat, Header, event, looking};
use super::fields::Object;
use super::job::{Looking, Outcome, Work};
use super::label_studio::Config;
use super::picture::{self, Picture};
use super::problem::{Problem, Told};
use super::shared::{self, Shared, Ticket};
use crate::geometry::Granularity;
use crate::protocol::ModelCard;

/// Paths that metrics tell apart.
const ROUTES: [&str; 9] = [
    "/v1/chat/completions",
    "/v1/models",
    "/v1/propose",
    "/health",
    "/setup",
    "/predict",
    "/metrics",
    "/healthz",
    "/",
];

impl AsRef<Access> for Shared {
    fn as_ref(&self) -> &Access {
        &self.access
    }
}

/// The router of a server.
pub fn router(shared: &Arc<Shared>) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat))
        .route("/v1/models", get(models))
        .route("/v1/models/{*id}", get(model))
        .route("/v1/propose", post(propose))
        .route("/health", get(health))
        .route("/", get(health))
        .route("/setup", post(setup))
        .route("/predict", post(predict))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .layer(middleware::from_fn_with_state(
            Arc::clone(shared),
            access::check::<Shared>,
        ))
        .layer(middleware::from_fn_with_state(Arc::clone(shared), count))
        .with_state(Arc::clone(shared))
}

/// Counts responses and errors.
async fn count(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let route = ROUTES.into_iter().find(|route| *route == path);
    let route = route.unwrap_or(match path.starts_with("/v1/models/") {
        true => "/v1/models/{id}",
        false => "other",
    });
    let response = next.run(request).await;
    shared.metrics.request(route, response.status().as_u16());
    if let Some(Told(code)) = response.extensions().get() {
        shared.metrics.error(code);
    }
    response
}

async fn not_found(request: Request) -> Problem {
    let message = format!("there is no {}", request.uri().path());
    Problem::new(StatusCode::NOT_FOUND, "not_found", message)
}

async fn not_allowed(request: Request) -> Problem {
    let message = format!(
        "{} does not take {}",
        request.uri().path(),
        request.method()
    );
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        message,
    )
}

async fn receive(shared: &Shared, request: Request) -> Result<Received, Problem> {
    body::receive(request, &shared.memory, shared.max_body).await
}

/// A JSON body.
async fn object(shared: &Shared, request: Request) -> Result<(Value, Received), Problem> {
    let mut received = receive(shared, request).await?;
    let bytes = std::mem::take(&mut received.bytes);
    let value = body::parsed(move || body::json(&bytes)).await?;
    Ok((value, received))
}

async fn chat(
    State(shared): State<Arc<Shared>>,
    Extension(client): Extension<ClientKey>,
    request: Request,
) -> Result<Response, Problem> {
    let (value, received) = object(&shared, request).await?;
    let (name, text_only) = (shared.card.name.clone(), shared.card.text_only);
    let chat = body::parsed(move || completion::read(&value, &name, text_only)).await?;
    let Chat {
        model,
        work,
        stream,
        include_usage,
    } = chat;
    check_model(&shared.card, &model)?;
    let mut ticket = shared.submit(&client.0, work, Some(received.memory))?;
    let header = Header {
        id: number("chatcmpl"),
        created: shared::now(),
        model,
    };
    if !stream {
        let outcome = ticket.outcome().await?;
        return Ok(Json(header.completion(&outcome)).into_response());
    }
    // What fails before the first text is answered with its own status.
    let first = ticket.next().await?;
    let stream = Stream {
        shared,
        header,
        include_usage,
        ticket: Some(ticket),
        ready: Some(first),
        is_first: true,
    };
    let events = stream::unfold(stream, |mut stream| async move {
        let text = stream.events().await?;
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(text)), stream))
    });
    let mut response = Body::from_stream(events).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

/// A response as a stream of events.
struct Stream {
    shared: Arc<Shared>,
    header: Header,
    include_usage: bool,
    /// None after the end.
    ticket: Option<Ticket>,
    /// The reply that was waited for before the response began.
    ready: Option<shared::Next>,
    is_first: bool,
}

impl Stream {
    /// The next events; `None` after the end.
    async fn events(&mut self) -> Option<String> {
        let ticket = self.ticket.as_mut()?;
        let next = match self.ready.take() {
            Some(ready) => Ok(ready),
            None => ticket.next().await,
        };
        let mut text = String::new();
        let mut add = |value: &Value| text.push_str(&event(&value.to_string()));
        if std::mem::replace(&mut self.is_first, false) {
            add(&self.header.first());
        }
        match next {
            Ok(shared::Next::Text(more)) => add(&self.header.text(&more)),
            Ok(shared::Next::Done(outcome)) => {
                add(&self.header.last(&outcome));
                if self.include_usage {
                    add(&self.header.usage(&outcome));
                }
                text.push_str(&event("[DONE]"));
                self.ticket = None;
            }
            Err(problem) => {
                self.shared.metrics.error(problem.code);
                add(&problem.json());
                self.ticket = None;
            }
        }
        Some(text)
    }
}

fn check_model(card: &ModelCard, name: &str) -> Result<(), Problem> {
    if name == card.name {
        return Ok(());
    }
    let message = format!("the model {name:?} is not loaded; {:?} is", card.name);
    let problem = Problem::field("model", message).code("model_not_found");
    Err(Problem {
        status: StatusCode::NOT_FOUND,
        ..problem
    })
}

/// A number that no other response of this process has.
fn number(kind: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{kind}-{:x}-{count:x}", shared::now())
}

fn model_json(shared: &Shared) -> Value {
    let card = &shared.card;
    json!({
        "id": card.name,
        "object": "model",
        "created": shared.created,
        "owned_by": "chatrex",
        "chatrex": {
            "licence": card.licence,
            "knows": card.knows,
            "classes": card.classes,
            "text_only": card.text_only,
            "device": card.device,
            "engine": card.engine,
        },
    })
}

async fn models(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(json!({"object": "list", "data": [model_json(&shared)]}))
}

async fn model(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    check_model(&shared.card, &id)?;
    Ok(Json(model_json(&shared)))
}

async fn propose(
    State(shared): State<Arc<Shared>>,
    Extension(client): Extension<ClientKey>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let received = receive(&shared, request).await?;
    let Received {
        bytes,
        is_picture,
        memory,
    } = received;
    let (picture, looking) = body::parsed(move || match is_picture {
        true => Ok((picture::body(bytes)?, Looking::default())),
        false => read_propose(&body::json(&bytes)?),
    })
    .await?;
    let granularity = looking.granularity;
    let work = Work {
        picture: Some(picture),
        looking,
        asking: None,
    };
    let outcome = shared
        .submit(&client.0, work, Some(memory))?
        .outcome()
        .await?;
    Ok(Json(proposed(&outcome, granularity)))
}

fn read_propose(value: &Value) -> Result<(Picture, Looking), Problem> {
    let fields = Object::of(value, "")?;
    fields.only(&["image", "model", "score", "nms", "prompt"])?;
    let image = fields.text("image")?;
    let image = image.ok_or_else(|| fields.wrong("image", "is missing"))?;
    Ok((Picture::from_url(image, "image")?, looking(Some(&fields))?))
}

fn proposed(outcome: &Outcome, granularity: Granularity) -> Value {
    let boxes = outcome.boxes.iter().enumerate().map(|(index, found)| {
        let mut row = json!({"index": index, "box": found.bbox, "score": found.score});
        if let Some(label) = &found.label {
            row["label"] = label.as_str().into();
        }
        row
    });
    json!({
        "image": outcome.size,
        "prompt": granularity,
        "boxes": boxes.collect::<Vec<_>>(),
        "milliseconds": outcome.looked,
    })
}

async fn health() -> Json<Value> {
    Json(json!({"status": "UP", "model_class": "ChatRex"}))
}

async fn healthz(State(shared): State<Arc<Shared>>) -> Result<Json<Value>, Problem> {
    if shared.healthy.load(Ordering::Relaxed) {
        return Ok(Json(json!({"status": "ok", "model": shared.card.name})));
    }
    let message = "the device failed in the last request";
    Err(Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "device_failed",
        message,
    ))
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let mut response = shared.metrics.text(shared.queue.length()).into_response();
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

async fn setup(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let (value, _received) = object(&shared, request).await?;
    let fields = Object::of(&value, "")?;
    let config = match fields.text("schema")? {
        Some(config) => Some(config),
        None => fields.text("label_config")?,
    };
    let config = config.ok_or_else(|| fields.wrong("schema", "is missing"))?;
    Config::read(config)?;
    Ok(Json(json!({"model_version": shared.card.name})))
}

async fn predict(
    State(shared): State<Arc<Shared>>,
    Extension(client): Extension<ClientKey>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let (value, _received) = object(&shared, request).await?;
    let fields = Object::of(&value, "")?;
    let config = fields.text("label_config")?;
    let config = config.ok_or_else(|| fields.wrong("label_config", "is missing"))?;
    let config = Config::read(config)?;
    let tasks = fields.list("tasks")?;
    let tasks = tasks.ok_or_else(|| fields.wrong("tasks", "is missing"))?;
    let mut results = Vec::new();
    for (index, task) in tasks.iter().enumerate() {
        let place = format!("tasks[{index}]");
        let task = Object::of(task, &place)?;
        let (address, param) = config.address(&task)?;
        let result = predicted(&shared, &client.0, &config, address, &param).await;
        results.push(result.map_err(|problem| Problem {
            message: format!("{place}: {}", problem.message),
            param: problem.param.clone().or(Some(place.clone())),
            ..problem
        })?);
    }
    Ok(Json(json!({"results": results})))
}

/// The prediction for the picture at `address`.
async fn predicted(
    shared: &Arc<Shared>,
    client: &str,
    config: &Config,
    address: &str,
    param: &str,
) -> Result<Value, Problem> {
    // The memory for pictures of the body is held by the request.
    let memory = match address.starts_with('/') {
        true => Some(body::reserve(&shared.memory, shared.max_body).await?),
        false => None,
    };
    let (address, param) = (address.to_owned(), param.to_owned());
    let (root, limit) = (shared.label_studio_root.clone(), shared.max_body as u64);
    let read = move || Picture::from_task(&address, root.as_deref(), limit, &param);
    let picture = body::parsed(read).await?;
    let mut ticket = shared.submit(client, config.work(picture), memory)?;
    let outcome = ticket.outcome().await?;
    Ok(config.prediction(&outcome, &shared.card.name))
}
