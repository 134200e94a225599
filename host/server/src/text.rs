//! Numbers as people read them.

use std::time::Duration;

/// `bytes` as people read sizes: `512 B`, `41.3 KiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A time in ms since epoch: `2013-01-05T03:00:00Z`.
pub fn time(at_ms: i64) -> String {
    let utc = arrow_array::temporal_conversions::timestamp_ms_to_datetime(at_ms);
    utc.map_or_else(|| at_ms.to_string(), |utc| format!("{}Z", utc.format("%Y-%m-%dT%H:%M:%S")))
}

/// `950 ms`, `3.2 s`, `4 min 10 s`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 0.9995 {
        format!("{} ms", duration.as_millis())
    } else if seconds < 59.95 {
        format!("{seconds:.1} s")
    } else {
        let whole = duration.as_secs();
        format!("{} min {} s", whole / 60, whole % 60)
    }
}

/// Bytes in lower-case hexadecimal.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes that [`hexadecimal`] has written; none: it has not.
pub fn from_hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f').then(|| char::from(byte).to_digit(16)).flatten();
    let pair = |pair: &[u8]| match pair {
        [high, low] => u8::try_from(digit(*high)? << 4 | digit(*low)?).ok(),
        _ => None,
    };
    text.as_bytes().chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_is_read_as_it_is_written_and_nothing_else_is() {
        assert_eq!(from_hexadecimal(&hexadecimal(&[0, 9, 10, 255])).as_deref(), Some(&[0, 9, 10, 255][..]));
        for other in ["0", "0g", "AB", "é", "+1"] {
            assert_eq!(from_hexadecimal(other), None, "{other}");
        }
    }

    #[test]
    fn sizes_are_read_by_people() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1024), "1.0 KiB");
        assert_eq!(size(5 << 30), "5.0 GiB");
    }
}
