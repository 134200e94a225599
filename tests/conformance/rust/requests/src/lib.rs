//! Asks over HTTP about the city of each row, and adds status and text, or why there is no answer.

use millstream::{
    Out, Row,
    http::{Answer, Failure, Request},
};

#[derive(Row)]
pub struct Told {
    status: Option<i32>,
    text: String,
}

#[derive(Default)]
pub struct Requests;

#[millstream::operator]
impl Requests {
    /// Nothing is asked about a city without a name.
    fn request(&self, city: &str) -> Option<Request> {
        match city {
            "" => None,
            "Oslo" => Some(Request::post("http://weather.example/", city)),
            city => Some(Request::get(format!("http://weather.example/{city}"))),
        }
    }

    fn process(&mut self, city: &str, answer: Answer, #[output(keep)] out: &mut Out<Told>) {
        let asked = answer.was_asked();
        let told = match answer.response() {
            Ok(response) => {
                let language = response.header("Content-Language").unwrap_or("none").to_owned();
                Told { status: Some(response.status.into()), text: format!("{city}: {} ({language})", response.text()) }
            }
            Err(_) if !asked => Told { status: None, text: "nothing asked".into() },
            Err(Failure::Refused(_)) => Told { status: None, text: "refused".into() },
            Err(Failure::Unreachable(_)) => Told { status: None, text: "unreachable".into() },
            Err(Failure::Timeout) => Told { status: None, text: "timeout".into() },
            Err(Failure::TooLarge) => Told { status: None, text: "too large".into() },
        };
        out.push(told);
    }
}
