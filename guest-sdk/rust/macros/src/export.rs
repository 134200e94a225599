//! The exports of a component, only there when compiled to Wasm.

use proc_macro2::{Ident, TokenStream};
use quote::quote;

/// Exports an operator. `migrates`: and `migration`.
pub fn operator(ident: &Ident, migrates: bool) -> TokenStream {
    let instance = quote!(::millstream::__rt::Instance<#ident>);
    let migration = migration(migrates);
    let exports = quote! {
        type __Component = ::millstream::__rt::Exported<#ident>;
        ::millstream::bindings::operator::__export_operator!(__Component with_types_in ::millstream::bindings::operator);
        #migration
    };
    let used = quote!(const _: fn(&str) -> ::core::result::Result<#ident, ::std::string::String> = <#ident as ::millstream::operator::Operator>::open;);
    component(ident, &instance, &exports, &used)
}

/// Exports an aggregate. `migrates`: and `migration`.
pub fn aggregate(ident: &Ident, migrates: bool) -> TokenStream {
    let instance = quote!(::millstream::aggregate::Instance<#ident>);
    let migration = migration(migrates);
    let exports = quote! {
        type __Component = ::millstream::__rt::ExportedAggregate<#ident>;
        ::millstream::bindings::aggregate::__export_aggregate!(__Component with_types_in ::millstream::bindings::aggregate);
        #migration
    };
    let used = quote!(const _: fn(&mut ::millstream::__rt::Reads) = <#ident as ::millstream::aggregate::Aggregate>::declare;);
    component(ident, &instance, &exports, &used)
}

fn migration(migrates: bool) -> Option<TokenStream> {
    migrates.then(
        || quote!(::millstream::bindings::migration::__export_migration!(__Component with_types_in ::millstream::bindings::migration);),
    )
}

/// `used` keeps the compiler from calling an operator unused where nothing exports it.
fn component(ident: &Ident, instance: &TokenStream, exports: &TokenStream, used: &TokenStream) -> TokenStream {
    quote! {
        #used

        #[cfg(target_family = "wasm")]
        const _: () = {
            ::std::thread_local! {
                static SLOT: ::millstream::__rt::Slot<#instance> = const { ::core::cell::RefCell::new(::core::option::Option::None) };
            }

            impl ::millstream::__rt::Opened for #ident {
                type Instance = #instance;

                fn slot() -> &'static ::std::thread::LocalKey<::millstream::__rt::Slot<#instance>> {
                    &SLOT
                }
            }

            #exports
        };
    }
}

/// `About`, of the crate that is being compiled.
pub fn about(summary: &str) -> TokenStream {
    quote! {
        ::millstream::__rt::About {
            name: ::core::env!("CARGO_PKG_NAME"),
            version: ::core::env!("CARGO_PKG_VERSION"),
            summary: #summary,
        }
    }
}

/// `settings_schema` and how the settings are parsed, for a type or none.
pub fn settings(of: Option<&syn::Type>) -> (TokenStream, TokenStream) {
    match of {
        Some(of) => (quote!(::millstream::__rt::settings::schema::<#of>()), quote!(::millstream::__rt::settings::parse::<#of>(settings)?)),
        None => (quote!(::std::string::String::new()), quote!(::millstream::__rt::settings::none(settings)?)),
    }
}
