//! Asks a server over HTTP for the name of each number, all numbers of a batch together.

use millstream::{
    Out, Row,
    http::{Answer, Failure, Request},
};

/// Who knows the names.
#[millstream::settings]
pub struct Settings {
    /// The number follows.
    url: String,
}

/// The name of a number, or why it has none.
#[derive(Row)]
pub struct Named {
    name: String,
}

/// Asks for names.
pub struct Enrich {
    url: String,
}

/// Adds the name that a server knows for each number.
#[millstream::operator]
impl Enrich {
    fn open(settings: Settings) -> Result<Self, String> {
        Ok(Self { url: settings.url })
    }

    fn request(&self, value: i64) -> Request {
        Request::get(format!("{}{value}", self.url))
    }

    fn process(&mut self, answer: Answer, #[output(keep)] out: &mut Out<Named>) {
        let name = match answer.response() {
            Ok(response) if response.is_success() => response.text(),
            Ok(response) => format!("status {}", response.status),
            Err(Failure::Refused(reason)) => format!("refused: {reason}"),
            Err(Failure::Unreachable(_)) => "unreachable".into(),
            Err(Failure::Timeout) => "timeout".into(),
            Err(Failure::TooLarge) => "too large".into(),
        };
        out.push(Named { name });
    }
}
