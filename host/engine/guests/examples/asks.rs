//! Asks for every number over HTTP, and adds what came back.

use millstream::{
    Out, Row,
    http::{Answer, Failure, Request, send},
};

/// Whom it asks.
#[millstream::settings]
struct Settings {
    /// The number follows.
    url: String,
    /// Asks for all of a call with `send` too, so often.
    #[serde(default)]
    again: u32,
    /// Asks where it may not.
    #[serde(default)]
    early: bool,
}

#[derive(Row)]
struct Answered {
    answer: String,
}

struct Asks {
    settings: Settings,
}

#[millstream::operator]
impl Asks {
    fn open(settings: Settings) -> Result<Self, String> {
        if settings.early {
            send(&[Request::get(&settings.url)]);
        }
        Ok(Self { settings })
    }

    fn request(&self, number: i64) -> Option<Request> {
        (number >= 0).then(|| Request::get(format!("{}{number}", self.settings.url)).header("X-Number", number.to_string()))
    }

    fn process(&mut self, number: i64, answer: Answer, #[output(keep)] out: &mut Out<Answered>) {
        for _ in 0..self.settings.again {
            send(&[Request::get(format!("{}{number}", self.settings.url))]);
        }
        let answer = match answer.response() {
            Ok(response) => format!("{} {}", response.status, response.text()),
            Err(Failure::Refused(reason)) => format!("refused: {reason}"),
            Err(Failure::Unreachable(reason)) => format!("unreachable: {reason}"),
            Err(Failure::Timeout) => "timeout".into(),
            Err(Failure::TooLarge) => "too large".into(),
        };
        out.push(Answered { answer });
    }
}
