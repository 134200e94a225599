//! Conformance case `rejects`. A rejected row leaves nothing behind: no output, no change of state.

use millstream::{Out, Reject, Row, State};

/// What is known of an account.
#[derive(State, Default)]
pub struct Account {
    balance: i64,
    history: Vec<i64>,
}

/// What is in an account.
#[derive(Row)]
pub struct Balance<'a> {
    account: &'a str,
    balance: i64,
}

/// Adds amounts; a row that would overdraw the account is rejected, after it has changed everything.
#[millstream::operator(keyed)]
pub fn book(account: &str, amount: i64, state: &mut Account, out: &mut Out<Balance<'_>>) -> Result<(), Reject> {
    state.balance += amount;
    state.history.push(amount);
    out.push(Balance { account, balance: state.balance });
    if state.balance < 0 {
        return Err(Reject::new(format!("overdrawn after {} bookings", state.history.len())));
    }
    Ok(())
}
