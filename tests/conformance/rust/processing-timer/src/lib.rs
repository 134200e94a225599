//! Conformance case `processing-timer`. A timer on the host's clock, one that sets itself again, and a late-row check.

use millstream::{EventTime, Now, Out, ProcessingTimer, Row};

/// What is said of a device.
#[derive(Row)]
pub struct Note<'a> {
    device: &'a str,
    note: &'a str,
}

/// Says how long a device has been silent, three times.
#[derive(Default)]
pub struct Silence;

#[millstream::operator(keyed)]
impl Silence {
    fn process(&self, device: &str, time: EventTime, now: Now, left: &mut u32, silence: &mut ProcessingTimer, out: &mut Out<Note<'_>>) {
        *left = 3;
        silence.set(now.processing_time.plus_ms(50));
        out.push(Note { device, note: if now.is_late(time) { "late" } else { "on time" } });
    }

    #[on_timer(silence)]
    fn silent(&self, device: &str, at: EventTime, left: &mut u32, silence: &mut ProcessingTimer, out: &mut Out<Note<'_>>) {
        out.push(Note { device, note: "silent" });
        *left -= 1;
        if *left > 0 {
            silence.set(at.plus_ms(50));
        }
    }
}
