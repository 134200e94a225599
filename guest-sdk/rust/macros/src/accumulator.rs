//! `#[millstream::aggregate]`: the `impl` block of an accumulator.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{Error, FnArg, ImplItem, ImplItemFn, ItemImpl, Result, ReturnType, Signature, Type, parse::Parser, spanned::Spanned};

use crate::{attributes::summary, export, handler::Handler};

pub fn expand(options: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let migrates = parse_options(options)?;
    let mut block: ItemImpl =
        syn::parse2(item).map_err(|error| Error::new(error.span(), "put this on the `impl` block of an accumulator"))?;
    let Type::Path(path) = &*block.self_ty else {
        return Err(Error::new(block.self_ty.span(), "an accumulator is a struct with #[derive(State, Default)]"));
    };
    let ident = path.path.require_ident()?.clone();
    let about = export::about(&summary(&block.attrs));
    let handler = accumulate(&mut block, &ident)?;
    let finish =
        method(&block, "finish").ok_or_else(|| Error::new(ident.span(), "an aggregate has a result: write `fn finish(&self) -> T`"))?;
    let ReturnType::Type(_, output) = &finish.sig.output else {
        return Err(Error::new(finish.sig.span(), "`finish` must return the result"));
    };
    let settings = handler.parameters.settings.clone().or_else(|| extra(&finish.sig, 1));
    let finish_call = with_settings(&quote!(Self::finish(self)), extra(&finish.sig, 1).is_some());
    let merge = method(&block, "merge");
    let merges = merge.is_some();
    let merge_body = merge.map(|merge| with_settings(&quote!(Self::merge(self, other)), extra(&merge.sig, 2).is_some()));
    let settings = settings.map(strip_reference);
    let (schema, parse) = export::settings(settings.as_ref());
    let settings_type = settings.map_or(quote!(()), |of| quote!(#of));
    let (reads, accumulate) = (handler.declare_arguments(), accumulate_all(&handler));
    let migrations = check_migrations(&ident, migrates);
    let exports = export::aggregate(&ident, migrates.is_some());
    Ok(quote! {
        #block

        impl ::millstream::aggregate::Aggregate for #ident {
            const ABOUT: ::millstream::__rt::About = #about;
            const MERGES: bool = #merges;
            type Settings = #settings_type;
            type Output = #output;

            fn settings_schema() -> ::std::string::String {
                #schema
            }

            #[allow(clippy::needless_question_mark, reason = "generated")]
            fn settings(settings: &str) -> ::core::result::Result<Self::Settings, ::std::string::String> {
                ::core::result::Result::Ok(#parse)
            }

            fn declare(reads: &mut ::millstream::__rt::Reads) {
                #reads
            }

            #accumulate

            #[allow(unused_variables, reason = "generated: not every handler uses everything")]
            fn merge_one(&mut self, settings: &Self::Settings, other: Self) {
                #merge_body
            }

            #[allow(unused_variables, reason = "generated: not every handler uses everything")]
            fn finish_one(&self, settings: &Self::Settings) -> Self::Output {
                #finish_call
            }
        }

        #migrations
        #exports
    })
}

/// Where it says that it migrates accumulators of older versions.
fn parse_options(options: TokenStream) -> Result<Option<Span>> {
    let mut migrates = None;
    let parser = syn::meta::parser(|meta| {
        if !meta.path.is_ident("migrates") {
            return Err(meta.error("an aggregate has the option `migrates`: it migrates accumulators of older versions"));
        }
        migrates = Some(meta.path.span());
        Ok(())
    });
    parser.parse2(options)?;
    Ok(migrates)
}

/// What the aggregate says, and what its type says, are the same.
fn check_migrations(ident: &Ident, migrates: Option<Span>) -> TokenStream {
    let has_none = quote!(<#ident as ::millstream::__rt::State>::MIGRATIONS.is_empty());
    match migrates {
        Some(span) => {
            let message = "this accumulator migrates nothing: say at the type what it does, #[state(version = 2, migrates(MeanV1))]";
            quote_spanned!(span=> const _: () = ::core::assert!(!#has_none, #message);)
        }
        None => {
            let message = "this accumulator migrates values of older versions: write #[millstream::aggregate(migrates)]";
            quote_spanned!(ident.span()=> const _: () = ::core::assert!(#has_none, #message);)
        }
    }
}

fn method<'b>(block: &'b ItemImpl, name: &str) -> Option<&'b ImplItemFn> {
    block.items.iter().find_map(|item| match item {
        ImplItem::Fn(method) if method.sig.ident == name => Some(method),
        _ => None,
    })
}

fn accumulate(block: &mut ItemImpl, ident: &Ident) -> Result<Handler> {
    let found = block.items.iter_mut().find_map(|item| match item {
        ImplItem::Fn(method) if method.sig.ident == "accumulate" => Some(method),
        _ => None,
    });
    let Some(method) = found else {
        return Err(Error::new(ident.span(), "an aggregate takes in rows: write `fn accumulate(&mut self, value: f64)`"));
    };
    let handler = Handler::of(&mut method.sig)?;
    match handler.parameters.parts.first() {
        Some(part) => Err(Error::new(part.ident.span(), "an aggregate has no state but itself, and no outputs")),
        None if handler.parameters.receiver.is_none() => {
            Err(Error::new(method.sig.span(), "`accumulate` takes `&mut self`, the accumulator"))
        }
        None => Ok(handler),
    }
}

/// The type of parameter `index` (after `self`), if there is one.
fn extra(signature: &Signature, index: usize) -> Option<Type> {
    match signature.inputs.iter().nth(index) {
        Some(FnArg::Typed(typed)) => Some((*typed.ty).clone()),
        _ => None,
    }
}

fn strip_reference(of: Type) -> Type {
    match of {
        Type::Reference(reference) => *reference.elem,
        other => other,
    }
}

/// A call with the settings as its last argument, or without.
fn with_settings(call: &TokenStream, wanted: bool) -> TokenStream {
    if !wanted {
        return call.clone();
    }
    let mut tokens: Vec<_> = call.clone().into_iter().collect();
    if let Some(proc_macro2::TokenTree::Group(arguments)) = tokens.pop() {
        let inner = arguments.stream();
        tokens.extend(quote!((#inner, settings)));
    }
    tokens.into_iter().collect()
}

fn accumulate_all(handler: &Handler) -> TokenStream {
    let readers = handler.readers("argument");
    let returns = &handler.returns;
    let arguments =
        handler.arguments("argument", false).into_iter().zip(&handler.parameters.all).map(|(argument, parameter)| match parameter {
            crate::parameters::Parameter::Settings => quote!(settings),
            _ => argument,
        });
    let call = quote_spanned!(returns.span()=> Self::accumulate(&mut into[u32::from_le_bytes(groups[__row]) as usize], #(#arguments),*););
    quote! {
        #[allow(unused_variables, unused_mut, reason = "generated: not every handler uses everything")]
        fn accumulate_all<'__a>(
            settings: &Self::Settings,
            call: &::millstream::__rt::Call<'__a>,
            mut columns: ::millstream::__rt::Columns<'_, '__a>,
            groups: &[[u8; 4]],
            into: &mut [Self],
        ) -> ::core::result::Result<(), ::millstream::__rt::Malformed> {
            #readers
            for __row in 0..call.length {
                ::millstream::__rt::panics::enter(__row);
                let __at = ::millstream::__rt::At { row: __row, key: 0 };
                #call
            }
            ::core::result::Result::Ok(())
        }
    }
}
