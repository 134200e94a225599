//! What a component says becomes a request, or is refused: pure.

use millstream_wasm::http::Request;
use reqwest::{
    Method, Url,
    header::{HeaderMap, HeaderName, HeaderValue},
};

/// Headers of one request, names and values together, in bytes.
const HEADER_BYTES_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 100;
const URL_BYTES_MAX: usize = 16 << 10;
/// Characters of a wrong name that are shown.
const SHOWN_MAX: usize = 60;

/// What says where a message ends or what becomes of its connection is for the client to say (RFC 9110 §7.6.1, RFC 9112 §6), and who is asked is in the URL.
const OURS: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

/// A request that may be sent.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
}

/// # Errors
/// It is no request, or one that is not sent; one clause.
pub(super) fn request(request: &Request) -> Result<Checked, String> {
    let Request { method, url, headers, body: _ } = request;
    Ok(Checked { method: checked_method(method)?, url: checked_url(url)?, headers: checked_headers(headers)? })
}

fn checked_method(method: &str) -> Result<Method, String> {
    match method {
        "GET" => Ok(Method::GET),
        "HEAD" => Ok(Method::HEAD),
        "POST" => Ok(Method::POST),
        "PUT" => Ok(Method::PUT),
        "PATCH" => Ok(Method::PATCH),
        "DELETE" => Ok(Method::DELETE),
        "OPTIONS" => Ok(Method::OPTIONS),
        other => Err(format!("the method `{}` is none of GET, HEAD, POST, PUT, PATCH, DELETE and OPTIONS", shown(other))),
    }
}

fn checked_url(text: &str) -> Result<Url, String> {
    if text.len() > URL_BYTES_MAX {
        return Err(format!("the URL has more than {URL_BYTES_MAX} bytes"));
    }
    let url: Url = text.parse().map_err(|error| format!("the URL `{}` cannot be read: {error}", shown(text)))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("the URL names a user: say it in the header `Authorization`".into());
    }
    super::may_connect(&url)?;
    Ok(url)
}

fn checked_headers(headers: &[(String, String)]) -> Result<HeaderMap, String> {
    let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    if headers.len() > HEADERS_MAX || bytes > HEADER_BYTES_MAX {
        return Err(format!("there are more than {HEADERS_MAX} headers, or they have more than {HEADER_BYTES_MAX} bytes"));
    }
    let mut checked = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        let parsed = HeaderName::try_from(name).map_err(|_wrong| format!("`{}` is no name of a header", shown(name)))?;
        if OURS.contains(&parsed.as_str()) || parsed.as_str().starts_with("proxy-") {
            return Err(format!("the header `{parsed}` is not a component's to set"));
        }
        // The value may be a secret, so it is not shown.
        let mut value = HeaderValue::try_from(value)
            .map_err(|_wrong| format!("the value of the header `{parsed}` has characters that no header has"))?;
        value.set_sensitive(true);
        checked.append(parsed, value);
    }
    Ok(checked)
}

fn shown(text: &str) -> String {
    let short: String = text.chars().take(SHOWN_MAX).collect();
    short.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(url: &str) -> Request {
        Request { method: "GET".into(), url: url.into(), headers: Vec::new(), body: Vec::new() }
    }

    fn refusal(asked: &Request) -> String {
        request(asked).expect_err("it is not sent")
    }

    #[test]
    fn what_a_component_may_say_is_said() {
        let headers = [("Accept", "application/json"), ("X-Tag", "a"), ("x-tag", "b"), ("Authorization", "Bearer s")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let asked = Request { method: "POST".into(), headers, body: b"{}".to_vec(), ..get("https://example.org:8443/a?b=c") };
        let checked = request(&asked).expect("it may be sent");
        assert_eq!((checked.method, checked.url.as_str()), (Method::POST, "https://example.org:8443/a?b=c"));
        assert_eq!(checked.headers.get_all("x-tag").iter().count(), 2, "a name may repeat");
        assert!(checked.headers["authorization"].is_sensitive());
    }

    #[test]
    fn headers_that_say_where_a_message_ends_or_who_is_asked_are_refused() {
        let names =
            ["Host", "Content-Length", "Transfer-Encoding", "Connection", "Upgrade", "TE", "Trailer", "Expect", "Proxy-Authorization"];
        for name in names {
            let asked = Request { headers: vec![(name.into(), "1".into())], ..get("http://example.org/") };
            assert_eq!(refusal(&asked), format!("the header `{}` is not a component's to set", name.to_lowercase()));
        }
    }

    #[test]
    fn nothing_is_smuggled_into_the_head_of_a_request() {
        for (name, value) in [("x", "a\r\nHost: evil"), ("x", "a\nb"), ("x", "a\0b"), ("x\r\ny", "a"), ("x:", "a"), ("", "a"), ("x y", "a")]
        {
            let asked = Request { headers: vec![(name.into(), value.into())], ..get("http://example.org/") };
            assert!(refusal(&asked).contains("header"), "{name:?}: {value:?}");
        }
        for method in ["GET / HTTP/1.1\r\nX: y", "get", "CONNECT", "TRACE", ""] {
            assert!(refusal(&Request { method: method.into(), ..get("http://example.org/") }).contains("method"), "{method:?}");
        }
        let path = request(&get("http://example.org/a b\r\nX: y")).expect("a URL is encoded").url.path().to_owned();
        assert!(!path.contains(['\r', '\n', ' ']), "{path}");
    }

    #[test]
    fn addresses_that_are_not_sent_to_are_refused() {
        for (url, why) in [
            ("ftp://example.org/", "neither http nor https"),
            ("file:///etc/passwd", "neither http nor https"),
            ("unix:/run/docker.sock", "neither http nor https"),
            ("http://user:secret@example.org/", "names a user"),
            ("not a url", "cannot be read"),
            ("", "cannot be read"),
        ] {
            let refused = refusal(&get(url));
            assert!(refused.contains(why) && !refused.contains("secret"), "{url}: {refused}");
        }
        let long = format!("http://example.org/{}", "a".repeat(URL_BYTES_MAX));
        assert!(refusal(&get(&long)).contains("more than"));
    }

    #[test]
    fn a_head_has_an_end() {
        let many = vec![("x".to_owned(), "y".to_owned()); HEADERS_MAX + 1];
        let large = vec![("x".to_owned(), "y".repeat(HEADER_BYTES_MAX))];
        for headers in [many, large] {
            assert!(refusal(&Request { headers, ..get("http://example.org/") }).contains("more than"));
        }
    }
}
