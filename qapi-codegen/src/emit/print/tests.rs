use super::{doc_mark, items};
use expect_test::{Expect, expect};
use proc_macro2::{TokenStream, TokenTree};
use quote::quote;

fn check(tokens: TokenStream, expected: &Expect) {
    let text = items(
        vec![tokens.clone()],
        &[vec!["A text.".to_owned(), String::new(), "More.".to_owned()]],
    );
    expected.assert_eq(&text);
    let read: TokenStream = text.parse().expect("the text is tokens");
    assert_eq!(plain(read), plain(tokens), "nothing is added or lost");
}

/// Tokens as words, without documentation and without commas at the end of lists.
fn plain(tokens: TokenStream) -> Vec<String> {
    let mut words = Vec::new();
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Group(group) => {
                let mut inside = plain(group.stream());
                if inside.first().is_some_and(|first| first == "doc") {
                    words.pop();
                    continue;
                }
                while inside.last().is_some_and(|last| last == ",") {
                    inside.pop();
                }
                // The value of an arm may get a block of its own.
                if words.ends_with(&["=".to_owned(), ">".to_owned()]) {
                    words.extend(inside);
                } else {
                    words.push(format!("{:?}", group.delimiter()));
                    words.extend(inside);
                    words.push("end".to_owned());
                }
                // Behind a block of an arm a comma may stand or not.
                if matches!(tokens.peek(), Some(TokenTree::Punct(punct)) if punct.as_char() == ',') {
                    tokens.next();
                }
            }
            TokenTree::Punct(punct) => words.push(punct.as_char().to_string()),
            other if other.to_string().starts_with("doc\u{b7}") => {}
            other => words.push(other.to_string()),
        }
    }
    words
}

#[test]
fn notes_are_as_long_as_the_line() {
    // How many lines an attribute takes, with a note of that length. In a field's line a comma counts.
    let lines = |length: usize, wrap: &dyn Fn(&str) -> String| {
        let tokens: TokenStream = wrap(&"x".repeat(length)).parse().expect("it is Rust");
        items(vec![tokens], &[]).lines().count()
    };
    let item = |note: &str| format!("#[deprecated(note = \"{note}\")] pub struct A;");
    assert_eq!((lines(76, &item), lines(77, &item)), (2, 4));
    let field = |note: &str| format!("pub struct A {{ #[deprecated(note = \"{note}\")] pub a: u8 }}");
    assert_eq!((lines(71, &field), lines(72, &field)), (4, 6));
    let variant = |note: &str| format!("pub enum A {{ #[deprecated(note = \"{note}\")] B }}");
    assert_eq!((lines(72, &variant), lines(73, &variant)), (4, 6));
    let nested = |note: &str| format!("#[cfg_attr(x, deprecated(note = \"{note}\"))] pub struct A;");
    assert_eq!((lines(73, &nested), lines(74, &nested)), (5, 7));
}

#[test]
fn structs_and_attributes() {
    let doc = doc_mark(0);
    check(
        quote! {
            #doc
            #[derive(Debug, Clone)]
            pub struct Shape<'a, T> {
                #doc #[cfg(feature = "x")] pub r#type: Option<&'a [T]>,
                pub(crate) other: ::std::boxed::Box<dyn Fn(u8) -> u8 + Send>,
            }
        },
        &expect![[r#"
            /// A text.
            ///
            /// More.
            #[derive(Debug, Clone)]
            pub struct Shape<'a, T> {
                /// A text.
                ///
                /// More.
                #[cfg(feature = "x")]
                pub r#type: Option<&'a [T]>,
                pub(crate) other: ::std::boxed::Box<dyn Fn(u8) -> u8 + Send>,
            }
        "#]],
    );
    check(
        quote! {
            #[cfg(all(any(feature = "config-win32", feature = "config-libudev"), any(feature = "config-linux")))]
            pub struct Empty;
        },
        &expect![[r#"
            #[cfg(all(
                any(feature = "config-win32", feature = "config-libudev"),
                any(feature = "config-linux")
            ))]
            pub struct Empty;
        "#]],
    );
    check(
        quote!(
            pub struct Pair(pub <A as B>::C, pub [u8; 16]);
        ),
        &expect![[r#"
        pub struct Pair(pub <A as B>::C, pub [u8; 16]);
    "#]],
    );
    check(
        quote!(
            pub enum Never {}
        ),
        &expect![[r#"
        pub enum Never {}
    "#]],
    );
    check(
        quote!(
            pub struct Unit {
                pub one: (u8,),
            }
        ),
        &expect![[r#"
        pub struct Unit {
            pub one: (u8,),
        }
    "#]],
    );
}

#[test]
fn functions() {
    check(
        quote! {
            impl<T: Execute> Client<T> {
                pub const ALL: &'static [Self] = &[Self::Default, Self::Preferred, Self::Bind, Self::Interleave];
                pub async fn a_method_with_a_long_name(&self, arguments: &ItsArguments,) -> Result<Vec<Reply>, T::Error> {
                    execute::with_arguments(&self.transport, "a-method-with-a-long-name", arguments).await
                }
                fn put(&self, out: &mut Writer) {
                    out.member("min_zone_append_latency_ns", &self.min_zone_append_latency_ns);
                    if !out.hides(Special::DEPRECATED) { out.optional("x", &self.x); }
                    if let Branch::Only(branch) = &self.branch { branch.put(out); }
                }
            }
        },
        &expect![[r#"
            impl<T: Execute> Client<T> {
                pub const ALL: &'static [Self] =
                    &[Self::Default, Self::Preferred, Self::Bind, Self::Interleave];

                pub async fn a_method_with_a_long_name(
                    &self,
                    arguments: &ItsArguments,
                ) -> Result<Vec<Reply>, T::Error> {
                    execute::with_arguments(&self.transport, "a-method-with-a-long-name", arguments).await
                }

                fn put(&self, out: &mut Writer) {
                    out.member(
                        "min_zone_append_latency_ns",
                        &self.min_zone_append_latency_ns,
                    );
                    if !out.hides(Special::DEPRECATED) {
                        out.optional("x", &self.x);
                    }
                    if let Branch::Only(branch) = &self.branch {
                        branch.put(out);
                    }
                }
            }
        "#]],
    );
}

#[test]
fn arms_and_chains() {
    check(
        quote! {
            fn take(object: &mut Object<'_>) -> Result<Self, DecodeError> {
                let kind: ShapeKind = object.special(Special::DEPRECATED.and(Special::UNSTABLE)).required("kind")?;
                Ok(match kind {
                    ShapeKind::Circle => Shape::Circle(Members::take(object)?),
                    #[cfg(feature = "x")] ShapeKind::Square => return Err(DecodeError::value("square")),
                    ShapeKind::SomethingWithAVeryLongName => Shape::SomethingWithAVeryLongName(Members::take(object)?),
                    ShapeKind::Unknown(value) => Shape::Unknown(UnknownBranch { value, members: Map::new(), }),
                    _ => {}
                })
            }
        },
        &expect![[r#"
            fn take(object: &mut Object<'_>) -> Result<Self, DecodeError> {
                let kind: ShapeKind = object
                    .special(Special::DEPRECATED.and(Special::UNSTABLE))
                    .required("kind")?;
                Ok(match kind {
                    ShapeKind::Circle => Shape::Circle(Members::take(object)?),
                    #[cfg(feature = "x")]
                    ShapeKind::Square => return Err(DecodeError::value("square")),
                    ShapeKind::SomethingWithAVeryLongName => {
                        Shape::SomethingWithAVeryLongName(Members::take(object)?)
                    }
                    ShapeKind::Unknown(value) => Shape::Unknown(UnknownBranch {
                        value,
                        members: Map::new(),
                    }),
                    _ => {}
                })
            }
        "#]],
    );
}
