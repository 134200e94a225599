//! Whether a request is sent again, and when: a pure function of what became of it.
//!
//! What may be repeated without harm (RFC 9110 §9.2.2) is, after a failure that may pass; anything else only where nothing was sent. Between two tries
//! 100 ms pass, then twice as long each time, up to 10 s, each half of it by chance; or as long as `Retry-After` says in seconds, up to a minute.

use millstream_wasm::http::Response;

use super::Failed;

const FIRST_WAIT_MS: i64 = 100;
const WAIT_MS_MAX: i64 = 10_000;
const RETRY_AFTER_MS_MAX: i64 = 60_000;
/// Request timeout, too early, too many requests, and errors of the server that may pass.
const PASSING: [u16; 7] = [408, 425, 429, 500, 502, 503, 504];
const IDEMPOTENT: [&str; 5] = ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"];

/// One try.
pub(super) struct Attempt<'a> {
    pub(super) method: &'a str,
    /// From 1.
    pub(super) number: u32,
    /// Tries in all.
    pub(super) tries: u32,
    pub(super) tried: &'a Result<Response, Failed>,
}

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// That was the last try.
    Over,
    /// Another one, after so many ms.
    After(i64),
}

/// `chance`: any number; a different one each time.
pub(super) fn next(attempt: &Attempt<'_>, chance: u64) -> Next {
    let is_idempotent = IDEMPOTENT.contains(&attempt.method);
    let asked_ms = match attempt.tried {
        _ if attempt.number >= attempt.tries => return Next::Over,
        Ok(response) if is_idempotent && PASSING.contains(&response.status) => retry_after_ms(response),
        Err(Failed::TimedOut | Failed::Broken(_)) if is_idempotent => 0,
        Err(Failed::Unconnected(_)) => 0,
        Ok(_) | Err(_) => return Next::Over,
    };
    let longest = FIRST_WAIT_MS.saturating_mul(1 << (attempt.number - 1).min(16)).min(WAIT_MS_MAX);
    let half = longest / 2;
    let by_chance = i64::try_from(mixed(chance) % u64::try_from(half + 1).unwrap_or(1)).unwrap_or(0);
    Next::After((half + by_chance).max(asked_ms))
}

fn retry_after_ms(response: &Response) -> i64 {
    let said = response.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("retry-after"));
    let seconds = said.and_then(|(_, value)| value.trim().parse::<u32>().ok()).unwrap_or(0);
    (i64::from(seconds) * 1_000).min(RETRY_AFTER_MS_MAX)
}

/// SplitMix64 (Steele, Lea, Flood 2014): numbers in a row come out far apart.
fn mixed(number: u64) -> u64 {
    let number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, retry_after: Option<&str>) -> Result<Response, Failed> {
        let headers = retry_after.map(|value| ("retry-after".to_owned(), value.to_owned())).into_iter().collect();
        Ok(Response { status, headers, body: Vec::new() })
    }

    fn next_of(method: &str, number: u32, tried: &Result<Response, Failed>) -> Next {
        next(&Attempt { method, number, tries: 4, tried }, 1)
    }

    fn is_repeated(method: &str, tried: &Result<Response, Failed>) -> bool {
        matches!(next_of(method, 1, tried), Next::After(_))
    }

    #[test]
    fn what_may_have_had_an_effect_is_repeated_only_if_it_does_no_harm_twice() {
        let refused = || Err(Failed::Unconnected("refused".into()));
        let broken = || Err(Failed::Broken("reset".into()));
        for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
            for tried in [answered(503, None), answered(429, None), Err(Failed::TimedOut), broken(), refused()] {
                assert!(is_repeated(method, &tried), "{method} {tried:?}");
            }
        }
        for method in ["POST", "PATCH"] {
            for tried in [answered(503, None), answered(429, None), Err(Failed::TimedOut), broken()] {
                assert!(!is_repeated(method, &tried), "{method} {tried:?}");
            }
            assert!(is_repeated(method, &refused()), "nothing was sent");
        }
    }

    #[test]
    fn what_will_not_change_is_not_repeated() {
        for status in [200, 204, 304, 400, 401, 404, 501] {
            assert!(!is_repeated("GET", &answered(status, None)), "{status}");
        }
        for failed in [Failed::Refused("no".into()), Failed::TooLarge, Failed::UsedUp] {
            assert!(!is_repeated("GET", &Err(failed.clone())), "{failed:?}");
        }
    }

    #[test]
    fn waits_grow_and_are_spread_and_the_last_try_is_the_last() {
        let tried = answered(503, None);
        for (number, range) in [(1, 50..=100), (2, 100..=200), (3, 200..=400)] {
            let waits: Vec<i64> = (0..100)
                .map(|chance| match next(&Attempt { method: "GET", number, tries: 4, tried: &tried }, chance) {
                    Next::After(wait_ms) => wait_ms,
                    Next::Over => -1,
                })
                .collect();
            assert!(waits.iter().all(|wait_ms| range.contains(wait_ms)), "{waits:?}");
            assert!(waits.iter().collect::<std::collections::BTreeSet<_>>().len() > 20, "{waits:?}");
        }
        assert_eq!(next_of("GET", 4, &tried), Next::Over);
        let Next::After(wait_ms) = next(&Attempt { method: "GET", number: 99, tries: 100, tried: &tried }, 7) else { unreachable!() };
        assert!((5_000..=10_000).contains(&wait_ms));
    }

    #[test]
    fn a_server_says_how_long_to_wait_up_to_a_minute() {
        assert_eq!(next_of("GET", 1, &answered(429, Some("7"))), Next::After(7_000));
        assert_eq!(next_of("GET", 1, &answered(503, Some("86400"))), Next::After(60_000));
        for nonsense in ["-1", "soon", "Wed, 21 Oct 2026 07:28:00 GMT", "99999999999"] {
            assert!(matches!(next_of("GET", 1, &answered(503, Some(nonsense))), Next::After(50..=100)), "{nonsense}");
        }
    }
}
