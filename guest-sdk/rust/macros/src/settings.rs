//! `#[millstream::settings]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{DeriveInput, Error, Result};

pub fn expand(options: TokenStream, item: TokenStream) -> Result<TokenStream> {
    if !options.is_empty() {
        return Err(Error::new_spanned(options, "#[millstream::settings] takes no options; use #[serde(…)] on the struct and its fields"));
    }
    let item: DeriveInput = syn::parse2(item)?;
    Ok(quote! {
        #[derive(Debug, ::millstream::__rt::serde::Deserialize, ::millstream::__rt::schemars::JsonSchema)]
        #[serde(crate = "::millstream::__rt::serde", rename_all = "kebab-case", deny_unknown_fields)]
        #[schemars(crate = "::millstream::__rt::schemars")]
        #item
    })
}
