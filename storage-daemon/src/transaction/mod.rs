//! The `transaction` command: who joins the group, and what each action does.

pub mod membership;
