//! Reading of attributes and names.

use proc_macro2::{TokenStream, TokenTree};
use quote::quote;
use syn::{
    Attribute, Error, Expr, Ident, Lit, LitBool, LitInt, LitStr, Meta, Result, Token, Type, meta::ParseNestedMeta, punctuated::Punctuated,
};

/// `worst_delay` → `worst-delay`; leading underscores and `r#` are dropped.
pub fn kebab(ident: &Ident) -> String {
    plain(ident).trim_start_matches('_').replace('_', "-")
}

/// The name without `r#`.
pub fn plain(ident: &Ident) -> String {
    let name = ident.to_string();
    name.strip_prefix("r#").map_or(name.clone(), str::to_owned)
}

/// The first line of the documentation.
pub fn summary(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter(|attribute| attribute.path().is_ident("doc")).filter_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) => match &pair.value {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Str(text) => Some(text.value()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    });
    lines.map(|line| line.trim().to_owned()).find(|line| !line.is_empty()).unwrap_or_default()
}

/// Takes the attributes of this name out of `attributes`.
pub fn take(attributes: &mut Vec<Attribute>, name: &str) -> Vec<Attribute> {
    let (taken, rest) = std::mem::take(attributes).into_iter().partition(|attribute| attribute.path().is_ident(name));
    *attributes = rest;
    taken
}

/// The options of a state, timer or output parameter, or of a state's type.
#[derive(Default)]
pub struct Options {
    pub name: Option<String>,
    pub keep: bool,
    pub version: Option<u32>,
    /// The types of older versions that are migrated.
    pub migrates: Vec<Type>,
    ttl_ms: Option<u64>,
    processing_time: bool,
    on_read: bool,
}

impl Options {
    /// Reads `#[state(…)]` and `#[output(…)]`.
    pub fn parse(attributes: &[Attribute]) -> Result<Self> {
        let mut options = Self::default();
        for attribute in attributes {
            let of_output = attribute.path().is_ident("output");
            attribute.parse_nested_meta(|meta| if of_output { options.read_output(&meta) } else { options.read_state(&meta) })?;
        }
        Ok(options)
    }

    fn read_output(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        if meta.path.is_ident("name") {
            self.name = Some(meta.value()?.parse::<LitStr>()?.value());
            return Ok(());
        }
        if meta.path.is_ident("keep") {
            self.keep = if meta.input.peek(syn::Token![=]) { meta.value()?.parse::<LitBool>()?.value } else { true };
            return Ok(());
        }
        Err(meta.error("an output has `name = \"…\"` and `keep`"))
    }

    fn read_state(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        let text = |meta: &ParseNestedMeta<'_>| meta.value()?.parse::<LitStr>();
        if meta.path.is_ident("name") {
            self.name = Some(text(meta)?.value());
        } else if meta.path.is_ident("version") {
            self.version = Some(meta.value()?.parse::<LitInt>()?.base10_parse()?);
        } else if meta.path.is_ident("migrates") {
            let types;
            syn::parenthesized!(types in meta.input);
            self.migrates.extend(Punctuated::<Type, Token![,]>::parse_terminated(&types)?);
            if self.migrates.is_empty() {
                return Err(meta.error("name the types that older versions had: `migrates(SeenV1)`"));
            }
        } else if meta.path.is_ident("ttl") {
            self.ttl_ms = Some(duration_ms(&text(meta)?)?);
        } else if meta.path.is_ident("clock") {
            self.processing_time = one_of(&text(meta)?, "event-time", "processing-time")?;
        } else if meta.path.is_ident("refresh") {
            self.on_read = one_of(&text(meta)?, "on-write", "on-read")?;
        } else {
            return Err(meta.error("a state has `name`, `version`, `migrates`, `ttl`, `clock` and `refresh`"));
        }
        Ok(())
    }

    /// `Option<Ttl>`.
    pub fn ttl_tokens(&self) -> TokenStream {
        let Some(ms) = self.ttl_ms else {
            return quote!(::core::option::Option::None);
        };
        let (processing_time, on_read) = (self.processing_time, self.on_read);
        quote!(::core::option::Option::Some(::millstream::__rt::Ttl { ms: #ms, processing_time: #processing_time, on_read: #on_read }))
    }

    /// `PartOptions`.
    pub fn tokens(&self) -> TokenStream {
        let (keep, ttl) = (self.keep, self.ttl_tokens());
        let name = option_tokens(self.name.as_ref());
        let version = option_tokens(self.version.as_ref());
        quote!(::millstream::__rt::PartOptions { name: #name, keep: #keep, version: #version, ttl: #ttl })
    }
}

fn option_tokens<T: quote::ToTokens>(value: Option<&T>) -> TokenStream {
    match value {
        Some(value) => quote!(::core::option::Option::Some(#value)),
        None => quote!(::core::option::Option::None),
    }
}

fn one_of(text: &LitStr, no: &str, yes: &str) -> Result<bool> {
    match text.value() {
        value if value == no => Ok(false),
        value if value == yes => Ok(true),
        _ => Err(Error::new(text.span(), format!("expected \"{no}\" or \"{yes}\""))),
    }
}

fn duration_ms(text: &LitStr) -> Result<u64> {
    let value = text.value();
    let digits = value.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let factor = match &value[digits.len()..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => 0,
    };
    let ms = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).filter(|ms| *ms > 0);
    ms.ok_or_else(|| Error::new(text.span(), "expected a duration such as \"500ms\", \"30s\", \"5m\", \"24h\" or \"7d\""))
}

/// The same tokens with every lifetime but `'static` replaced.
pub fn with_lifetimes(tokens: TokenStream, replacement: &str) -> TokenStream {
    let mut after_quote = false;
    let replace = |token: TokenTree| match token {
        TokenTree::Group(group) => {
            let mut replaced = proc_macro2::Group::new(group.delimiter(), with_lifetimes(group.stream(), replacement));
            replaced.set_span(group.span());
            TokenTree::Group(replaced)
        }
        TokenTree::Punct(punct) => {
            after_quote = punct.as_char() == '\'';
            TokenTree::Punct(punct)
        }
        TokenTree::Ident(ident) if after_quote => {
            after_quote = false;
            TokenTree::Ident(if ident == "static" { ident } else { Ident::new(replacement, ident.span()) })
        }
        other => other,
    };
    tokens.into_iter().map(replace).collect()
}
