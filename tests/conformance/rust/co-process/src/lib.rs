//! Conformance case `co-process`. Two inputs that share state: orders wait for their payment, and time out.

use millstream::{EventTime, EventTimer, Out, Row, State};

/// An order that is not paid yet.
#[derive(State)]
pub struct Waiting {
    item: String,
    until: i64,
}

/// An order.
#[derive(Row)]
pub struct Order<'a> {
    id: u64,
    item: &'a str,
}

/// A payment.
#[derive(Row)]
pub struct Payment {
    id: u64,
    cents: i64,
}

/// An order with its payment.
#[derive(Row)]
pub struct Paid {
    id: u64,
    item: String,
    cents: i64,
}

/// An order without one.
#[derive(Row)]
pub struct Unpaid {
    id: u64,
    item: String,
}

/// Joins each order with its payment; an order that is not paid within a minute is reported.
#[derive(Default)]
pub struct Payments;

#[millstream::operator(keyed)]
impl Payments {
    #[input]
    fn orders(&mut self, order: Order<'_>, time: EventTime, waiting: &mut Option<Waiting>, due: &mut EventTimer) {
        let until = time.plus_ms(60_000);
        due.set(until);
        *waiting = Some(Waiting { item: order.item.to_owned(), until: until.0 });
        let _ = order.id;
    }

    #[input]
    fn payments(&mut self, payment: Payment, waiting: &mut Option<Waiting>, due: &mut EventTimer, paid: &mut Out<Paid>) {
        if let Some(order) = waiting.take() {
            due.delete(order.until);
            paid.push(Paid { id: payment.id, item: order.item, cents: payment.cents });
        }
    }

    #[on_timer(due)]
    fn overdue(&mut self, id: u64, waiting: &mut Option<Waiting>, unpaid: &mut Out<Unpaid>) {
        if let Some(order) = waiting.take() {
            unpaid.push(Unpaid { id, item: order.item });
        }
    }
}
