use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use millstream_egress::{Mode, Policy, Settings};
use millstream_wasm::http::Budget;

use super::*;

/// A server on this machine, and the heads and bodies of the requests that it had.
struct Server {
    address: SocketAddr,
    had: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// `answer`: what is written for a request, by its first line.
    fn start(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (had, answer) = (Arc::<Mutex<Vec<String>>>::default(), Arc::new(answer));
        let noted = had.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (noted, answer) = (noted.clone(), answer.clone());
                // Who hangs up is the test's own business.
                std::thread::spawn(move || drop(converse(&stream.expect("a client"), &noted, &*answer)));
            }
        });
        Self { address, had }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn had(&self) -> Vec<String> {
        self.had.lock().expect("nobody panics with it").clone()
    }
}

fn converse(stream: &TcpStream, noted: &Mutex<Vec<String>>, answer: &dyn Fn(&str) -> String) -> io::Result<()> {
    let mut lines = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if lines.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(|length| length.parse()));
        let mut body = vec![0; length.and_then(Result::ok).unwrap_or(0)];
        lines.read_exact(&mut body)?;
        let first = head.lines().next().unwrap_or_default().to_owned();
        noted.lock().expect("nobody panics with it").push(format!("{head}{}", String::from_utf8_lossy(&body)));
        let (mut stream, answer) = (stream, answer(&first));
        stream.write_all(answer.as_bytes())?;
        if answer.contains("Connection: close") {
            return Ok(());
        }
    }
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
}

fn get(url: impl Into<String>) -> Request {
    Request { method: "GET".into(), url: url.into(), headers: Vec::new(), body: Vec::new() }
}

async fn send(request: &Request) -> Result<Response, Failed> {
    send_with(request, 1_000, &Budget::of(1_000_000)).await
}

async fn send_with(request: &Request, bytes_max: u64, together: &Budget) -> Result<Response, Failed> {
    Web::default().send(request, Room { bytes_max, together }).await
}

fn refusal(sent: Result<Response, Failed>) -> String {
    match sent {
        Err(Failed::Refused(reason)) => reason,
        other => panic!("it is not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_request_goes_as_it_is_said_and_the_answer_comes_as_it_is() {
    let server = Server::start(|_| answer("404 Not Found", "X-Tag: a\r\nX-Tag: b\r\n", "nobody"));
    let request = Request {
        method: "POST".into(),
        headers: vec![("X-Key".into(), "k".into()), ("X-Key".into(), "l".into())],
        body: b"{\"a\":1}".to_vec(),
        ..get(server.url("/a%20b?c=d"))
    };
    let response = send(&request).await.expect("it is answered");
    assert_eq!((response.status, &*response.body), (404, &b"nobody"[..]));
    let tags = response.headers.iter().filter(|(name, _)| name == "x-tag").map(|(_, value)| value.as_str());
    assert_eq!(tags.collect::<Vec<_>>(), ["a", "b"]);
    let had = &server.had()[0];
    assert!(had.starts_with("POST /a%20b?c=d HTTP/1.1\r\n") && had.ends_with("\r\n\r\n{\"a\":1}"), "{had}");
    assert!(had.contains("x-key: k\r\nx-key: l\r\n") && had.contains(&format!("host: {}\r\n", server.address)), "{had}");
    assert_eq!(had.matches("content-length").count(), 1, "{had}");
}

#[tokio::test]
async fn redirects_are_followed_so_far() {
    let server = Server::start(|first| match first.split(' ').nth(1).unwrap_or_default() {
        "/end" => answer("200 OK", "", "here"),
        "/once" => answer("302 Found", "Location: /end\r\n", ""),
        _ => answer("307 Temporary Redirect", "Location: /round\r\n", ""),
    });
    assert_eq!(send(&get(server.url("/once"))).await.expect("it is followed").body, b"here");
    assert!(server.had().iter().all(|had| !had.contains("referer")), "{:?}", server.had());
    assert_eq!(refusal(send(&get(server.url("/round"))).await), "more than 5 redirects");
    assert_eq!(server.had().len(), 2 + 6);
    for (location, why) in [("ftp://a/", "neither http nor https"), ("file:///etc/passwd", "")] {
        let away = Server::start(move |_| answer("302 Found", &format!("Location: {location}\r\n"), ""));
        let sent = send(&get(away.url("/"))).await;
        // What is no address of the web may also be handed over as it is.
        match sent {
            Ok(response) => assert_eq!((response.status, response.body.len()), (302, 0)),
            refused => assert!(refusal(refused).contains(why)),
        }
    }
}

/// Secrets are for whom they were meant for.
#[tokio::test]
async fn who_is_redirected_to_takes_no_credentials_along() {
    let other = Server::start(|_| answer("200 OK", "", ""));
    let location = other.url("/");
    let server = Server::start(move |_| answer("302 Found", &format!("Location: {location}\r\n"), ""));
    let headers = ["Authorization", "Cookie"].map(|name| (name.to_owned(), "secret".to_owned())).to_vec();
    send(&Request { headers, ..get(server.url("/")) }).await.expect("it is followed");
    assert_eq!(server.had()[0].matches("secret").count(), 2);
    assert!(!other.had()[0].contains("secret"), "{:?}", other.had());
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_given_up() {
    let whole = Server::start(|_| answer("200 OK", "", &"x".repeat(2_000)));
    assert_eq!(send(&get(whole.url("/"))).await, Err(Failed::TooLarge));
    let chunked = Server::start(|_| {
        let chunk = format!("3e8\r\n{}\r\n", "x".repeat(1_000));
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n")
    });
    assert_eq!(send(&get(chunked.url("/"))).await, Err(Failed::TooLarge));
    let together = Budget::of(3_000);
    assert!(send_with(&get(whole.url("/")), 5_000, &together).await.is_ok(), "it fits");
    assert_eq!(send_with(&get(whole.url("/")), 5_000, &together).await, Err(Failed::UsedUp));
    let head = Request { method: "HEAD".into(), ..get(whole.url("/")) };
    let silent = Server::start(|_| "HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n".into());
    assert_eq!(send(&Request { url: silent.url("/"), ..head }).await.expect("there is no body").body, b"");
}

#[tokio::test]
async fn nobody_there_is_told_from_somebody_who_hangs_up() {
    let absent = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port that is free again");
    let sent = send(&get(format!("http://{absent}/"))).await;
    assert!(matches!(&sent, Err(Failed::Unconnected(why)) if why.contains("refused")), "{sent:?}");
    let rude = Server::start(|_| "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\nfour".into());
    let sent = send(&get(rude.url("/"))).await;
    assert!(matches!(&sent, Err(Failed::Broken(_))), "half an answer is none: {sent:?}");
    let hangs_up = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = hangs_up.local_addr().expect("it is bound");
    std::thread::spawn(move || hangs_up.incoming().for_each(drop));
    let sent = send(&get(format!("http://{address}/"))).await;
    assert!(matches!(&sent, Err(Failed::Broken(_))), "{sent:?}");
}

/// One process for each test (cargo-nextest), and one policy for each process.
#[tokio::test]
async fn nothing_inside_is_reached_by_a_component_whatever_leads_there() {
    let inside = Server::start(|_| answer("200 OK", "", "secret"));
    let port = inside.address.port();
    let targets = [inside.url("/"), "http://169.254.169.254/latest/meta-data/".to_owned(), format!("http://localhost:{port}/")];
    let listed = Server::start(move |first| {
        let number: usize = first.split(['/', ' ']).nth(2).and_then(|number| number.parse().ok()).unwrap_or(0);
        answer("302 Found", &format!("Location: {}\r\n", targets[number]), "")
    });
    let allow = vec![listed.address.to_string()];
    gate::close(Policy::read(&Settings { mode: Mode::Public, allow }).expect("good")).expect("the first time");
    for host in
        ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "0.0.0.0", "0x7f.1", "2130706433", "[::1]", "[64:ff9b::7f00:1]"]
    {
        let reason = refusal(send(&get(format!("http://{host}:{port}/"))).await);
        assert!(reason.contains("not allow"), "{host}: {reason}");
    }
    for host in ["169.254.169.254", "[fd00:ec2::254]", "100.100.100.200"] {
        let reason = refusal(send(&get(format!("http://{host}/latest/meta-data/"))).await);
        assert!(reason.ends_with("is not allowed: it is metadata of a cloud"), "{host}: {reason}");
    }
    for number in 0..3 {
        let reason = refusal(send(&get(listed.url(&format!("/{number}")))).await);
        assert!(reason.contains("not allow"), "redirect {number}: {reason}");
    }
    assert_eq!(listed.had().len(), 3, "the first address is allowed");
    assert_eq!(inside.had(), [""; 0]);
}
