//! The `transaction` command: what each action does.
