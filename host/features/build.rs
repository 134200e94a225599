//! Present so that the features of build dependencies count.

fn main() {}
