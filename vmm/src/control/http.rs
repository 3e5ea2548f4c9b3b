//! As much of HTTP/1.1 (RFC 9112) as a control socket needs: requests with small bodies, answers with a length.

use std::io::{self, BufRead, Read, Write};

/// Most bytes of a request line and its headers.
const MOST_HEAD: usize = 8 << 10;
/// Most headers of a message.
const MOST_HEADERS: usize = 64;
/// Most bytes of a request's body.
const MOST_BODY: u64 = 64 << 10;

/// A status code with its reason phrase (RFC 9110, 15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Status(pub(super) u16, &'static str);

impl Status {
    pub(super) const OK: Self = Self(200, "OK");
    pub(super) const NO_CONTENT: Self = Self(204, "No Content");
    pub(super) const BAD_REQUEST: Self = Self(400, "Bad Request");
    pub(super) const NOT_FOUND: Self = Self(404, "Not Found");
    pub(super) const METHOD_NOT_ALLOWED: Self = Self(405, "Method Not Allowed");
    pub(super) const CONFLICT: Self = Self(409, "Conflict");
    pub(super) const LENGTH_REQUIRED: Self = Self(411, "Length Required");
    pub(super) const CONTENT_TOO_LARGE: Self = Self(413, "Content Too Large");
    pub(super) const HEADERS_TOO_LARGE: Self = Self(431, "Request Header Fields Too Large");
    pub(super) const INTERNAL: Self = Self(500, "Internal Server Error");
    pub(super) const UNAVAILABLE: Self = Self(503, "Service Unavailable");
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: String,
    /// The target as it came: path and query.
    pub(super) target: String,
    /// What came with it; empty with most.
    pub(super) body: Vec<u8>,
    /// The client wants to send another one.
    pub(super) keep_alive: bool,
}

/// Why there is no request.
#[derive(Debug)]
pub(super) enum NoRequest {
    /// The client has gone, or is silent for too long.
    Closed,
    /// It sent what cannot be served; the connection ends after the answer.
    Refused(Status, &'static str),
}

impl From<io::Error> for NoRequest {
    fn from(_: io::Error) -> Self {
        Self::Closed
    }
}

/// Reads a request. `connection` is a buffered stream; `continue_to` the same stream's other direction.
pub(super) fn read_request(
    connection: &mut impl BufRead,
    continue_to: &mut impl Write,
) -> Result<Request, NoRequest> {
    let head = read_head(connection)?;
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(&head) {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => {
            return Err(NoRequest::Refused(
                Status::HEADERS_TOO_LARGE,
                "the request has too many headers",
            ));
        }
        Ok(httparse::Status::Partial) | Err(_) => {
            return Err(NoRequest::Refused(
                Status::BAD_REQUEST,
                "the request is not HTTP/1.1",
            ));
        }
    }
    let header = |name: &str| {
        let found = parsed
            .headers
            .iter()
            .find(|h| h.name.eq_ignore_ascii_case(name));
        found.map(|h| String::from_utf8_lossy(h.value).trim().to_ascii_lowercase())
    };
    if header("transfer-encoding").is_some() {
        return Err(NoRequest::Refused(
            Status::LENGTH_REQUIRED,
            "the request's body has no length",
        ));
    }
    let length = match header("content-length") {
        None => 0,
        Some(text) => text.parse().map_err(|_| {
            NoRequest::Refused(Status::BAD_REQUEST, "Content-Length is not a number")
        })?,
    };
    if length > MOST_BODY {
        return Err(NoRequest::Refused(
            Status::CONTENT_TOO_LARGE,
            "the request's body is too large",
        ));
    }
    if length > 0 && header("expect").is_some_and(|value| value == "100-continue") {
        continue_to.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let mut body = Vec::new();
    if connection.take(length).read_to_end(&mut body)? as u64 != length {
        return Err(NoRequest::Closed);
    }
    let keep_alive = match header("connection").as_deref() {
        Some("close") => false,
        Some("keep-alive") => true,
        _ => parsed.version == Some(1),
    };
    Ok(Request {
        method: parsed.method.unwrap_or_default().to_string(),
        target: parsed.path.unwrap_or_default().to_string(),
        body,
        keep_alive,
    })
}

/// Everything up to and with the empty line.
fn read_head(connection: &mut impl BufRead) -> Result<Vec<u8>, NoRequest> {
    let mut head = Vec::new();
    loop {
        let room = (MOST_HEAD - head.len()) as u64;
        let line = connection
            .by_ref()
            .take(room)
            .read_until(b'\n', &mut head)?;
        if head == b"\r\n" || head == b"\n" {
            head.clear(); // Empty lines before a request are no part of it (RFC 9112, 2.2).
        } else if head.ends_with(b"\n\r\n") || head.ends_with(b"\n\n") {
            return Ok(head);
        } else if head.len() == MOST_HEAD {
            return Err(NoRequest::Refused(
                Status::HEADERS_TOO_LARGE,
                "the request's headers are too large",
            ));
        } else if line == 0 || !head.ends_with(b"\n") {
            return Err(NoRequest::Closed);
        }
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: Status,
    /// JSON; empty with [`Status::NO_CONTENT`].
    pub(super) body: String,
    /// The one method that the path takes, with [`Status::METHOD_NOT_ALLOWED`].
    pub(super) allow: Option<&'static str>,
}

impl Response {
    /// Sends the answer; `keep_alive` tells the client whether it may go on.
    pub(super) fn write(&self, to: &mut impl Write, keep_alive: bool) -> io::Result<()> {
        let Status(code, reason) = self.status;
        let connection = if keep_alive { "keep-alive" } else { "close" };
        let mut message = format!("HTTP/1.1 {code} {reason}\r\nConnection: {connection}\r\n");
        if let Some(method) = self.allow {
            message += &format!("Allow: {method}\r\n");
        }
        // An answer without content has no length either (RFC 9110, 8.6).
        if self.status != Status::NO_CONTENT {
            message += &format!(
                "Content-Type: application/json\r\nContent-Length: {}\r\n",
                self.body.len()
            );
        }
        message += "\r\n";
        message += &self.body;
        to.write_all(message.as_bytes())?;
        to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Request, NoRequest> {
        read_request(&mut &bytes[..], &mut io::sink())
    }

    fn status(bytes: &[u8]) -> Option<u16> {
        match read(bytes) {
            Err(NoRequest::Refused(Status(code, _), _)) => Some(code),
            Ok(_) | Err(NoRequest::Closed) => None,
        }
    }

    #[test]
    fn a_request_is_its_method_and_target() {
        let request = read(b"\r\nGET /v1/state?a=b HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let expected = Request {
            method: "GET".to_string(),
            target: "/v1/state?a=b".to_string(),
            body: Vec::new(),
            keep_alive: true,
        };
        assert_eq!(request, expected);
    }

    #[test]
    fn connections_are_kept_as_the_version_and_the_header_say() {
        let table = [
            ("1.1", "", true),
            ("1.1", "Connection: close\r\n", false),
            ("1.0", "", false),
            ("1.0", "Connection: Keep-Alive\r\n", true),
        ];
        for (version, header, keep_alive) in table {
            let text = format!("GET / HTTP/{version}\r\n{header}\r\n");
            assert_eq!(
                read(text.as_bytes()).unwrap().keep_alive,
                keep_alive,
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_body_comes_with_its_request_and_the_next_one_follows() {
        let bytes = b"PUT /a HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}GET /b HTTP/1.1\r\n\r\n";
        let mut connection = &bytes[..];
        let mut next = || {
            let request = read_request(&mut connection, &mut io::sink()).unwrap();
            (request.target, request.body)
        };
        assert_eq!(next(), ("/a".to_string(), b"{}".to_vec()));
        assert_eq!(next(), ("/b".to_string(), Vec::new()));
        let end = read_request(&mut connection, &mut io::sink());
        assert!(matches!(end, Err(NoRequest::Closed)), "{end:?}");
    }

    #[test]
    fn a_client_that_waits_for_leave_to_send_its_body_gets_it() {
        let bytes = b"PUT / HTTP/1.1\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\nx";
        let mut answer = Vec::new();
        read_request(&mut &bytes[..], &mut answer).unwrap();
        assert_eq!(answer, b"HTTP/1.1 100 Continue\r\n\r\n");
    }

    #[test]
    fn what_is_too_large_is_refused_before_it_is_read() {
        assert_eq!(
            status(b"PUT / HTTP/1.1\r\nContent-Length: 65537\r\n\r\n"),
            Some(413)
        );
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(MOST_HEAD));
        assert_eq!(status(long.as_bytes()), Some(431));
        let many = format!(
            "GET / HTTP/1.1\r\n{}\r\n",
            "a: b\r\n".repeat(MOST_HEADERS + 1)
        );
        assert_eq!(status(many.as_bytes()), Some(431));
    }

    #[test]
    fn what_is_no_http_is_refused() {
        assert_eq!(status(b"hello\r\n\r\n"), Some(400));
        assert_eq!(
            status(b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n"),
            Some(400)
        );
        assert_eq!(
            status(b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Some(411)
        );
    }

    #[test]
    fn a_request_cut_short_is_no_request() {
        for bytes in [
            &b""[..],
            b"GET",
            b"GET / HTTP/1.1\r\n",
            b"PUT / HTTP/1.1\r\nContent-Length: 9\r\n\r\nshort",
        ] {
            let end = read(bytes);
            assert!(matches!(end, Err(NoRequest::Closed)), "{end:?}");
        }
    }

    #[test]
    fn an_answer_without_content_has_no_length() {
        let mut bytes = Vec::new();
        let response = Response {
            status: Status::NO_CONTENT,
            body: String::new(),
            allow: None,
        };
        response.write(&mut bytes, true).unwrap();
        assert_eq!(
            bytes,
            b"HTTP/1.1 204 No Content\r\nConnection: keep-alive\r\n\r\n"
        );
    }
}
