//! Both ends from one schema, its conditions as Cargo features, and a Rust type of our own in it.

use qapi_codegen::{Build, Conditions, Role};

fn main() {
    let build = |role, name| {
        Build::new("weather.json")
            .role(role)
            .name(name)
            .conditions(Conditions::cargo_features())
            .type_override("Celsius", "crate::Celsius")
            .run();
    };
    build(Role::Server, "server");
    build(Role::Client, "client");
}
