//! Who may ask: tokens, the names under which the server is reached, and pages of other origins.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, AUTHORIZATION, HOST, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::problem::Problem;
use crate::weights::manifest::hex;

/// The address of the client of a request.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// The name under which the queue knows the client of a request.
#[derive(Clone, Debug)]
pub struct ClientKey(pub String);

/// Routes without a token: they tell only that the server runs.
const OPEN: [&str; 2] = ["/health", "/healthz"];

/// The rules of access.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// SHA-256 of the tokens; empty if none is needed.
    tokens: Vec<[u8; 32]>,
    /// Origins whose pages may ask, such as `https://example.org`.
    origins: Vec<String>,
}

impl Access {
    /// Access with one of `tokens`, or without a token if there are none; also for pages of `origins`.
    pub fn new(tokens: &[String], origins: &[String]) -> Self {
        Self {
            tokens: tokens.iter().map(|token| hash(token)).collect(),
            origins: origins.to_vec(),
        }
    }

    /// Without tokens the server is on a loopback address: a request must name that address, so that a page whose
    /// name was made to resolve to it (DNS rebinding) is refused.
    fn check_host(&self, headers: &HeaderMap) -> Result<(), Problem> {
        if !self.tokens.is_empty() {
            return Ok(());
        }
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = host.unwrap_or_default();
        if is_loopback(host) {
            return Ok(());
        }
        let message = format!(
            "the header Host is {host:?}, which is no loopback address. Use http://127.0.0.1, or start the server \
             with a token"
        );
        Err(Problem::new(StatusCode::FORBIDDEN, "host_refused", message))
    }

    /// The origin of another page, if it may ask.
    fn check_origin(&self, headers: &HeaderMap) -> Result<Option<HeaderValue>, Problem> {
        let Some(origin) = headers.get(ORIGIN) else {
            return Ok(None);
        };
        let text = origin.to_str().unwrap_or_default();
        if self.origins.iter().any(|allowed| allowed == text) {
            return Ok(Some(origin.clone()));
        }
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        let own = text.split_once("://").map(|(_, authority)| authority);
        if own.is_some() && own == host {
            return Ok(None);
        }
        let message = format!(
            "pages of {text:?} may not ask. Start the server with --allow-origin to allow it"
        );
        Err(Problem::new(
            StatusCode::FORBIDDEN,
            "origin_refused",
            message,
        ))
    }

    fn check_token(&self, given: Option<&str>) -> Result<(), Problem> {
        if self.tokens.is_empty() {
            return Ok(());
        }
        let unauthorized =
            |code, message: &str| Err(Problem::new(StatusCode::UNAUTHORIZED, code, message));
        let Some(given) = given else {
            return unauthorized(
                "missing_token",
                "send the header Authorization: Bearer TOKEN",
            );
        };
        let given = hash(given);
        // Hashes of secrets are compared, all of them and every byte.
        let is_same = |token: &[u8; 32]| {
            let different = token
                .iter()
                .zip(&given)
                .fold(0, |sum, (a, b)| sum | (a ^ b));
            std::hint::black_box(different) == 0
        };
        match self
            .tokens
            .iter()
            .fold(false, |any, token| any | is_same(token))
        {
            true => Ok(()),
            false => unauthorized("invalid_token", "the token is wrong"),
        }
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Whether `host`, with or without a port, is `localhost` or a loopback address.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map(|(name, _)| name),
        None => host.split(':').next(),
    };
    let name = name.unwrap_or_default();
    let is_address = name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    is_address || name.eq_ignore_ascii_case("localhost")
}

/// The token of a request: that of the scheme Bearer, or the password of the scheme Basic.
fn token(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = value.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    pair.split_once(':')
        .map(|(_, password)| password.to_owned())
}

/// Lets requests through that may ask, and answers the questions of browsers about other origins.
pub async fn check<S: AsRef<Access>>(
    State(state): State<Arc<S>>,
    mut request: Request,
    next: Next,
) -> Response {
    let access: &Access = (*state).as_ref();
    let headers = request.headers();
    let origin = match access
        .check_host(headers)
        .and_then(|()| access.check_origin(headers))
    {
        Ok(origin) => origin,
        Err(problem) => return problem.into_response(),
    };
    let given = token(headers);
    let response = if let (Some(_), &Method::OPTIONS) = (&origin, request.method()) {
        preflight(headers)
    } else {
        let is_open = OPEN.contains(&request.uri().path());
        match access.check_token(given.as_deref()) {
            Err(problem) if !is_open => problem.into_response(),
            _ => {
                let peer = request.extensions().get::<Peer>();
                let peer = peer.map(|peer| peer.0.to_string()).unwrap_or_default();
                let key = match given {
                    Some(token) => format!("{peer} {}", hex(&hash(&token)[..8])),
                    None => peer,
                };
                request.extensions_mut().insert(ClientKey(key));
                next.run(request).await
            }
        }
    };
    with_origin(response, origin)
}

fn preflight(headers: &HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let allow = response.headers_mut();
    let methods = HeaderValue::from_static("GET, POST, OPTIONS");
    allow.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
    if let Some(wanted) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        allow.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    allow.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

fn with_origin(mut response: Response, origin: Option<HeaderValue>) -> Response {
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(VARY, HeaderValue::from_static("Origin"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(axum::http::HeaderName, &str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| (name.clone(), value.parse().expect("a value")))
            .collect()
    }

    #[test]
    fn hosts_are_loopback_names() {
        for host in [
            "localhost:8040",
            "LocalHost",
            "127.0.0.1:1",
            "127.9.9.9",
            "[::1]:8040",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "evil.example:8040",
            "localhost.evil",
            "10.0.0.1",
            "[::2]",
            "[::1",
            "::1",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
        let open = Access::default();
        assert!(
            open.check_host(&headers(&[(HOST, "evil.example")]))
                .is_err()
        );
        let closed = Access::new(&["t".into()], &[]);
        assert!(
            closed
                .check_host(&headers(&[(HOST, "evil.example")]))
                .is_ok()
        );
    }

    #[test]
    fn pages_of_other_origins_are_refused_unless_listed() {
        let access = Access::new(&[], &["https://a.example".into()]);
        let check = |origin| {
            let headers = headers(&[(HOST, "localhost:1"), (ORIGIN, origin)]);
            access.check_origin(&headers)
        };
        assert_eq!(check("http://localhost:1"), Ok(None));
        assert!(check("https://a.example").expect("listed").is_some());
        for origin in [
            "null",
            "http://localhost:2",
            "https://b.example",
            "https://a.example.b",
        ] {
            assert_eq!(check(origin).expect_err(origin).code, "origin_refused");
        }
    }

    #[test]
    fn tokens_come_as_bearer_or_password() {
        let access = Access::new(&["secret".into(), "other".into()], &[]);
        let check = |value: &str| {
            let given = token(&headers(&[(AUTHORIZATION, value)]));
            access.check_token(given.as_deref())
        };
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        for value in ["Bearer secret", "bearer other ", &basic("user:secret")] {
            assert_eq!(check(value), Ok(()), "{value}");
        }
        for value in [
            "Bearer secre",
            "Bearer",
            "secret",
            "Basic ?",
            &basic("secret"),
            "Bearer ",
        ] {
            let problem = check(value).expect_err(value);
            assert_eq!(problem.status, StatusCode::UNAUTHORIZED, "{value}");
        }
        assert!(Access::default().check_token(None).is_ok());
    }
}
