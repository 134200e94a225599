//! Requests over HTTP, where the job grants them (`http: {}` beside `component`): together, for the rows of a whole batch.
//!
//! An operator with a `fn request` asks something for each row, and its `process` gets the [`Answer`]; the requests of a batch are on their way at the same
//! time, as many as the job allows.
//! ```
//! use millstream::{Out, Row, http::{Answer, Request}};
//!
//! #[derive(Row)]
//! struct Reading<'a> { city: &'a str }
//!
//! #[derive(Row)]
//! struct Weather { weather: Option<String> }
//!
//! #[derive(Default)]
//! struct Lookup;
//!
//! #[millstream::operator]
//! impl Lookup {
//!     /// What is asked for a row. `Option<Request>`: none, and nothing is.
//!     fn request(&self, row: Reading<'_>) -> Request {
//!         Request::get(format!("https://weather.example/{}", row.city)).header("Accept", "text/plain")
//!     }
//!
//!     fn process(&mut self, answer: Answer, #[output(keep)] out: &mut Out<Weather>) {
//!         let weather = answer.response().ok().filter(|response| response.is_success()).map(|response| response.text());
//!         out.push(Weather { weather });
//!     }
//! }
//!
//! let mut lookup = millstream::testing::Harness::<Lookup>::new();
//! lookup.answer_requests(|request| Ok(millstream::http::Response::of(200, if request.url.ends_with("Rome") { "sun" } else { "rain" })));
//! lookup.rows([Reading { city: "Rome" }, Reading { city: "Oslo" }]);
//! assert_eq!(lookup.emitted()[1].columns["weather"], "rain");
//! ```
//! Whatever else is to be sent, [`send`] sends, in any handler. A call that is repeated after a failure sends its requests again: ask for what does no
//! harm twice, or give it a key by which the other side knows it again.

use std::cell::RefCell;

use crate::{
    argument::{Argument, Columns, Reads},
    call::Call,
    host, panics,
    value::Malformed,
};

pub use crate::bindings::http::millstream::operator::http::{Failure, Request, Response};

/// Most rows of a call of an operator that asks something for each: their answers are in memory together, and checkpoints wait for them.
pub(crate) const ROWS_MAX: &str = "512";

impl Request {
    /// A request without headers or body; `method` is in capitals.
    pub fn new(method: &str, url: impl Into<String>) -> Self {
        Self { method: method.to_owned(), url: url.into(), headers: Vec::new(), body: Vec::new() }
    }

    /// GET.
    pub fn get(url: impl Into<String>) -> Self {
        Self::new("GET", url)
    }

    /// POST.
    pub fn post(url: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..Self::new("POST", url) }
    }

    /// PUT.
    pub fn put(url: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..Self::new("PUT", url) }
    }

    /// DELETE.
    pub fn delete(url: impl Into<String>) -> Self {
        Self::new("DELETE", url)
    }

    /// With a header more.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

impl Response {
    /// An answer without headers, as a test gives it.
    pub fn of(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    /// Whether the status is one of 200 to 299.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The first header of this name, in whatever case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body as text; what is not UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends requests together, and waits for all answers: in the order of the requests.
pub fn send(requests: &[Request]) -> Vec<Result<Response, Failure>> {
    if requests.is_empty() { Vec::new() } else { host::send(requests) }
}

/// What a `fn request` returns: a request, or perhaps one.
#[diagnostic::on_unimplemented(message = "`fn request` returns `Request` or `Option<Request>`, not `{Self}`", label = "not a request")]
pub trait Ask {
    /// The request; none: nothing is asked.
    fn into_request(self) -> Option<Request>;
}

impl Ask for Request {
    fn into_request(self) -> Option<Request> {
        Some(self)
    }
}

impl Ask for Option<Request> {
    fn into_request(self) -> Option<Request> {
        self
    }
}

/// What came back for the request of a row.
#[derive(Clone, Debug)]
pub struct Answer(Option<Result<Response, Failure>>);

impl Answer {
    /// Whether anything was asked.
    pub fn was_asked(&self) -> bool {
        self.0.is_some()
    }

    /// The response, whatever its status.
    ///
    /// # Errors
    /// There is none: it was refused, nobody answered in time, or nothing was asked.
    pub fn response(self) -> Result<Response, Failure> {
        self.0.unwrap_or_else(|| Err(Failure::Refused("nothing was asked for this row".into())))
    }
}

/// The answers of a call, by row; each is taken once.
pub type Answers = RefCell<Vec<Option<Result<Response, Failure>>>>;

/// Asks for every row of a call what `request` says. Before the rows are handled.
#[doc(hidden)]
pub fn ask<A: Ask>(call: &Call<'_>, mut request: impl FnMut(usize) -> A) {
    let (mut rows, mut requests) = (Vec::new(), Vec::new());
    for row in 0..call.length {
        panics::enter(row);
        if let Some(request) = request(row).into_request() {
            rows.push(row);
            requests.push(request);
        }
    }
    let mut answers = vec![None; call.length];
    for (row, answer) in rows.into_iter().zip(send(&requests)) {
        answers[row] = Some(answer);
    }
    call.answers.replace(answers);
}

impl<'a> Argument<'a> for Answer {
    type Reader = Answers;
    const PER_KEY: bool = false;

    fn declare(_: &str, reads: &mut Reads) {
        reads.answers = true;
    }

    fn reader(call: &Call<'a>, _: &mut Columns<'_, 'a>) -> Result<Answers, Malformed> {
        Ok(RefCell::new(call.answers.take()))
    }

    #[inline]
    fn get(answers: &Answers, row: usize) -> Self {
        Self(answers.borrow_mut().get_mut(row).and_then(Option::take))
    }
}
