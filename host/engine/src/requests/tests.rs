use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use millstream_wasm::Limits;
use tokio::sync::Notify;

use super::*;
use crate::{clock::ManualClock, spec::DurationMs};

/// What a script says of one try.
#[derive(Clone, Debug)]
enum Said {
    Status(u16),
    Fails(Failed),
    /// Nobody ever answers.
    Silence,
}

/// Answers by URL, as a script says; what the script does not know is 200 with the URL as its body.
#[derive(Default)]
struct Script {
    says: Mutex<BTreeMap<String, VecDeque<Said>>>,
    asked: Mutex<Vec<String>>,
    /// On their way now, and at most.
    now: Mutex<(usize, usize)>,
    /// If there is one, who asks waits for it.
    gate: Option<Notify>,
}

impl Script {
    fn of(says: &[(&str, &[Said])]) -> Self {
        let says = says.iter().map(|(url, said)| ((*url).to_owned(), said.iter().cloned().collect())).collect();
        Self { says: Mutex::new(says), ..Self::default() }
    }

    fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
        of.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn asked(&self) -> Vec<String> {
        Self::lock(&self.asked).clone()
    }

    fn most_at_once(&self) -> usize {
        Self::lock(&self.now).1
    }
}

#[async_trait]
impl Client for Script {
    async fn send(&self, request: &Request, room: Room<'_>) -> Result<Response, Failed> {
        Self::lock(&self.asked).push(request.url.clone());
        {
            let mut now = Self::lock(&self.now);
            now.0 += 1;
            now.1 = now.1.max(now.0);
        }
        if let Some(gate) = &self.gate {
            gate.notified().await;
        }
        // Later ones are answered first.
        let turns = request.url.rsplit('/').next().and_then(|number| number.parse().ok()).unwrap_or(0_usize);
        for _ in turns..20 {
            tokio::task::yield_now().await;
        }
        Self::lock(&self.now).0 -= 1;
        let said = Self::lock(&self.says).get_mut(&request.url).and_then(VecDeque::pop_front);
        match said.unwrap_or(Said::Status(200)) {
            Said::Status(status) => {
                let body = request.url.clone().into_bytes();
                if !room.together.take(body.len() as u64) {
                    return Err(Failed::UsedUp);
                }
                Ok(Response { status, headers: Vec::new(), body })
            }
            Said::Fails(failed) => Err(failed),
            Said::Silence => std::future::pending().await,
        }
    }
}

struct Subject {
    script: Arc<Script>,
    clock: Arc<ManualClock>,
    grant: Arc<Grant>,
}

impl Subject {
    fn new(script: Script, settings: HttpSettings) -> Self {
        let script = Arc::new(script);
        let grant = Arc::new(Grant::new(settings, script.clone()));
        Self { script, clock: Arc::new(ManualClock::at(0)), grant }
    }

    /// The requests of one subtask.
    fn granted(&self) -> Granted {
        Granted { grant: self.grant.clone(), clock: self.clock.clone(), metrics: Arc::default(), spread: AtomicU64::new(7) }
    }

    /// Runs a future whose waits are for the clock, which moves when nothing else does.
    async fn moving<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        let mut turns = 0_u32;
        loop {
            tokio::select! {
                biased;
                result = &mut future => return result,
                () = tokio::task::yield_now() => {
                    turns += 1;
                    if turns.is_multiple_of(100) {
                        self.clock.advance(Duration::from_millis(10));
                    }
                }
            }
        }
    }

    async fn send(&self, granted: &Granted, requests: Vec<Request>, call: &mut Call) -> Result<Vec<Answer>, UsedUp> {
        self.moving(granted.send(requests, call)).await
    }
}

fn call() -> Call {
    Call::new(&Limits::default())
}

fn get(url: &str) -> Request {
    Request { method: "GET".into(), url: url.into(), headers: Vec::new(), body: Vec::new() }
}

fn post(url: &str) -> Request {
    Request { method: "POST".into(), ..get(url) }
}

fn statuses(answers: &[Answer]) -> Vec<Result<u16, Failure>> {
    answers.iter().map(|answer| answer.clone().map(|response| response.status)).collect()
}

fn settings(concurrency: u32, tries: u32) -> HttpSettings {
    let number = |number| std::num::NonZeroU32::new(number).expect("not zero");
    HttpSettings { concurrency: number(concurrency), tries: number(tries), ..HttpSettings::default() }
}

#[tokio::test]
async fn answers_stand_in_the_order_of_the_requests_whoever_answers_first() {
    let subject = Subject::new(Script::default(), settings(5, 1));
    let requests: Vec<Request> = (0..20).map(|number| get(&format!("http://a/{number}"))).collect();
    let answers = subject.send(&subject.granted(), requests.clone(), &mut call()).await.expect("they are small");
    let bodies = answers.into_iter().map(|answer| String::from_utf8(answer.expect("answered").body).expect("text"));
    assert!(bodies.eq(requests.into_iter().map(|request| request.url)));
    assert_eq!(subject.script.most_at_once(), 5);
}

/// The bound is that of the operator, not of each subtask.
#[tokio::test]
async fn subtasks_of_an_operator_together_have_no_more_on_their_way_than_it_may() {
    let script = Script { gate: Some(Notify::new()), ..Script::default() };
    let subject = Subject::new(script, settings(3, 1));
    let requests: Vec<Request> = (0..10).map(|number| get(&format!("http://a/{number}"))).collect();
    let (one, other) = (subject.granted(), subject.granted());
    let (mut call_of_one, mut call_of_other) = (call(), call());
    let both = async { tokio::join!(one.send(requests.clone(), &mut call_of_one), other.send(requests.clone(), &mut call_of_other)) };
    let mut both = std::pin::pin!(both);
    let answered = loop {
        tokio::select! {
            biased;
            answered = &mut both => break answered,
            () = tokio::task::yield_now() => subject.script.gate.as_ref().expect("there is one").notify_one(),
        }
    };
    assert_eq!((answered.0.expect("small").len(), answered.1.expect("small").len()), (10, 10));
    assert_eq!(subject.script.most_at_once(), 3);
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_what_is_left_is_the_answer() {
    let passing = [Said::Status(500), Said::Fails(Failed::Broken("reset".into())), Said::Status(200)];
    let lasting = [Said::Status(503), Said::Status(503), Said::Status(503), Said::Status(200)];
    let nobody = || Said::Fails(Failed::Unconnected("nobody is there".into()));
    let absent = [nobody(), nobody(), nobody()];
    let script =
        Script::of(&[("http://passing", &passing), ("http://lasting", &lasting), ("http://absent", &absent), ("http://post", &passing)]);
    let subject = Subject::new(script, settings(1, 3));
    let requests = vec![get("http://passing"), get("http://lasting"), get("http://absent"), post("http://post")];
    let answers = subject.send(&subject.granted(), requests, &mut call()).await.expect("small");
    assert_eq!(statuses(&answers), [Ok(200), Ok(503), Err(Failure::Unreachable("nobody is there".into())), Ok(500)]);
    let tries = |url: &str| subject.script.asked().iter().filter(|asked| *asked == url).count();
    assert_eq!(["http://passing", "http://lasting", "http://absent", "http://post"].map(tries), [3, 3, 3, 1]);
}

#[tokio::test]
async fn a_try_and_a_call_have_their_time_and_no_more() {
    let silent: Vec<Said> = vec![Said::Silence; 9];
    let script = Script::of(&[("http://silent", &silent)]);
    let settings = HttpSettings { timeout: DurationMs::from_ms(1_000), call_timeout: DurationMs::from_ms(2_500), ..settings(4, 9) };
    let subject = Subject::new(script, settings);
    let (granted, mut call) = (subject.granted(), call());
    let answers = subject.send(&granted, vec![get("http://silent"), get("http://quick")], &mut call).await.expect("small");
    assert_eq!(statuses(&answers), [Err(Failure::Timeout), Ok(200)]);
    let took_ms = subject.clock.monotonic_ms();
    assert!((2_000..=2_600).contains(&took_ms), "the whole call: {took_ms}");
    assert_eq!(subject.script.asked().iter().filter(|url| *url == "http://silent").count(), 3, "three tries fit");
    // The same call of the guest has used up its time; another one has it anew.
    let left_ms = 2_500 - call.waited_ms;
    let answers = subject.send(&granted, vec![get("http://silent")], &mut call).await.expect("small");
    assert_eq!(statuses(&answers), [Err(Failure::Timeout)]);
    assert!(subject.clock.monotonic_ms() - took_ms <= left_ms + 10);
}

#[tokio::test]
async fn a_server_that_says_wait_longer_than_there_is_time_is_not_waited_for() {
    let subject = Subject::new(
        Script::of(&[("http://busy", &[Said::Status(503)])]),
        HttpSettings { call_timeout: DurationMs::from_ms(40), ..settings(1, 3) },
    );
    let answers = subject.send(&subject.granted(), vec![get("http://busy")], &mut call()).await.expect("small");
    assert_eq!(statuses(&answers), [Ok(503)]);
    assert_eq!(subject.script.asked().len(), 1);
}

#[tokio::test]
async fn answers_of_one_call_have_a_limit_together() {
    let subject = Subject::new(Script::default(), settings(2, 3));
    let granted = subject.granted();
    let mut call = Call::new(&Limits { answer_bytes_per_call: 25, ..Limits::default() });
    let two = vec![get("http://a/1"), get("http://a/2")];
    assert_eq!(subject.send(&granted, two.clone(), &mut call).await.expect("20 bytes").len(), 2);
    assert_eq!(subject.send(&granted, two, &mut call).await, Err(UsedUp));
}

#[tokio::test]
async fn what_was_sent_is_counted_and_what_is_waited_for_is_shown_until_it_is_there() {
    let script = Script { gate: Some(Notify::new()), ..Script::of(&[("http://a/x", &[Said::Status(500), Said::Status(200)])]) };
    let subject = Subject::new(script, settings(1, 2));
    let granted = subject.granted();
    let body = Request { body: b"12345".to_vec(), method: "PUT".into(), ..get("http://a/x") };
    let mut call = call();
    {
        let mut sent = std::pin::pin!(granted.send(vec![body], &mut call));
        assert!(futures::poll!(&mut sent).is_pending());
        assert_eq!(granted.metrics.waits.get(), Some((0, Waiting::Answers { requests: 1 })));
        for _ in 0..2 {
            subject.script.gate.as_ref().expect("there is one").notify_one();
            for _ in 0..50 {
                let _pending = futures::poll!(&mut sent).is_pending();
                subject.clock.advance(Duration::from_millis(5));
                tokio::task::yield_now().await;
                if granted.metrics.waits.get().is_none() {
                    break;
                }
            }
        }
    }
    assert_eq!(granted.metrics.waits.get(), None);
    assert_eq!(granted.metrics.requests.get(), 2);
    assert_eq!(granted.metrics.request_bytes.get(), 2 * (3 + 10 + 5));
    assert_eq!(granted.metrics.answer_bytes.get(), 2 * 10);
}
