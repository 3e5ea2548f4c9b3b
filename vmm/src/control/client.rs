//! The other end of the socket, for `memu-ctl`.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::api::Failure;

/// Most headers of an answer.
const MOST_HEADERS: usize = 32;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no machine listens on {}: {error}; give the path that its configuration has as [control] socket", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The host's answer.
        error: io::Error,
    },
    /// The conversation broke off.
    #[error("the machine at {} does not answer: {error}; it may have ended", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// The host's answer.
        error: io::Error,
    },
    /// Something answered that is no control socket.
    #[error("what listens on {} is no control socket of memu", .0.display())]
    NotHttp(PathBuf),
    /// The machine refused.
    #[error("{0}")]
    Refused(Failure),
}

/// What a machine answers to a request that it grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// JSON; empty if there is nothing to say.
    pub body: String,
}

/// One machine's control socket.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
}

impl Client {
    /// The machine whose socket is `path`.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_path_buf(),
        }
    }

    /// Sends one request on a connection of its own; `body` is JSON, or empty.
    ///
    /// # Errors
    /// Nobody listens, the conversation broke off, or the machine refused.
    pub fn request(&self, method: &str, target: &str, body: &str) -> Result<Answer, ClientError> {
        let mut stream = UnixStream::connect(&self.path).map_err(|error| ClientError::Connect {
            path: self.path.clone(),
            error,
        })?;
        let message = format!(
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut answer = Vec::new();
        stream
            .write_all(message.as_bytes())
            .and_then(|()| stream.read_to_end(&mut answer))
            .map_err(|error| ClientError::Broken {
                path: self.path.clone(),
                error,
            })?;
        self.parse(&answer)
    }

    fn parse(&self, answer: &[u8]) -> Result<Answer, ClientError> {
        let no_http = || ClientError::NotHttp(self.path.clone());
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut parsed = httparse::Response::new(&mut headers);
        let Ok(httparse::Status::Complete(head)) = parsed.parse(answer) else {
            return Err(no_http());
        };
        let body = answer.get(head..).unwrap_or_default();
        let body = String::from_utf8(body.to_vec()).map_err(|_| no_http())?;
        match parsed.code {
            Some(200 | 204) => Ok(Answer { body }),
            _ => Err(serde_json::from_str(&body).map_or_else(|_| no_http(), ClientError::Refused)),
        }
    }
}
