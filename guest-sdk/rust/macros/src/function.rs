//! Operators that are one function. The function stays as it is; beside it stands a type of the same name that is the operator.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{Error, ItemFn, LitBool, Result, parse::Parser, spanned::Spanned};

use crate::{
    attributes::summary,
    export,
    handler::{Handler, Loop, Options, declare_parts},
    parameters::Part,
};

/// Which macro was used.
#[derive(Clone, Copy)]
pub enum Form {
    Filter,
    Map,
    FlatMap,
    /// `#[millstream::operator]` on a function.
    Operator(Options),
}

pub fn expand(options: TokenStream, item: TokenStream, form: Form) -> Result<TokenStream> {
    let keep = parse_options(options, form)?;
    let mut function: ItemFn = syn::parse2(item).map_err(|error| Error::new(error.span(), "put this on a function"))?;
    let handler = Handler::of(&mut function.sig)?;
    check(&handler, &function, form)?;
    let (declare, process) = bodies(&handler, form, keep);
    let (visibility, ident) = (&function.vis, &function.sig.ident);
    let about = export::about(&summary(&function.attrs));
    let (schema, parse) = export::settings(handler.parameters.settings.as_ref());
    let field = handler.parameters.settings.as_ref().map(|of| quote!(settings: #of,));
    let open = if field.is_some() { quote!(Ok(Self { settings: #parse })) } else { quote!({ #parse; Ok(Self {}) }) };
    let migrates = matches!(form, Form::Operator(Options { migrates: Some(_), .. }));
    let exports = export::operator(ident, migrates);
    Ok(quote! {
        #function

        #[doc(hidden)]
        #[allow(non_camel_case_types, reason = "named like the function")]
        #visibility struct #ident { #field }

        impl ::millstream::operator::Operator for #ident {
            const ABOUT: ::millstream::__rt::About = #about;

            fn settings_schema() -> ::std::string::String {
                #schema
            }

            fn declare(to: &mut ::millstream::__rt::Declaration) {
                #declare
            }

            fn open(settings: &str) -> ::core::result::Result<Self, ::std::string::String> {
                #open
            }

            fn process(
                &mut self,
                layout: &::millstream::__rt::Layout,
                _port: usize,
                call: &::millstream::__rt::Call<'_>,
                answer: &mut ::millstream::__rt::Answer,
            ) -> ::core::result::Result<(), ::millstream::__rt::Malformed> {
                let mut columns = ::millstream::__rt::Columns::new(call, &layout.columns[0]);
                #process
                ::core::result::Result::Ok(())
            }
        }

        #exports
    })
}

/// Whether a map keeps the columns of its input.
fn parse_options(options: TokenStream, form: Form) -> Result<bool> {
    let mut keep = true;
    let parser = syn::meta::parser(|meta| match form {
        Form::Map if meta.path.is_ident("keep") => {
            keep = meta.value()?.parse::<LitBool>()?.value;
            Ok(())
        }
        Form::Map => Err(meta.error("a map has the option `keep = false`: emit the new columns alone")),
        _ => Err(meta.error("this macro takes no options")),
    });
    parser.parse2(options)?;
    Ok(keep)
}

fn check(handler: &Handler, function: &ItemFn, form: Form) -> Result<()> {
    let signature = &function.sig;
    if let Some(receiver) = &handler.parameters.receiver {
        return Err(Error::new(receiver.span(), "put #[millstream::operator] on the `impl` block instead"));
    }
    let output = handler.parameters.parts.first();
    match form {
        Form::Filter | Form::Map if output.is_some() => {
            let part = output.expect("just seen");
            Err(Error::new(
                part.ident.span(),
                "a filter or map has no outputs, state or timers: use #[millstream::flat_map] or #[millstream::operator(keyed)]",
            ))
        }
        Form::Filter | Form::Map if matches!(signature.output, syn::ReturnType::Default) => {
            let what = if matches!(form, Form::Filter) { "`-> bool`" } else { "the row with the new columns" };
            Err(Error::new(signature.ident.span(), format!("this function must return {what}")))
        }
        Form::FlatMap | Form::Operator(_) if output.is_none() => {
            Err(Error::new(signature.ident.span(), "this operator has no output: take `out: &mut Out<T>`, where T has #[derive(Row)]"))
        }
        _ => Ok(()),
    }
}

/// The bodies of `declare` and `process`.
fn bodies(handler: &Handler, form: Form, keep: bool) -> (TokenStream, TokenStream) {
    let reads = handler.declare_arguments();
    let readers = handler.readers("argument");
    let (ident, returns) = (&handler.ident, &handler.returns);
    let arguments = handler.arguments("argument", false);
    let per_row = quote!(|__row| {
        let __at = call.at(__row);
        #ident(#(#arguments),*)
    });
    let one_output = |adds: TokenStream, keep: bool| {
        let keeps = if keep { quote!(::core::option::Option::Some(0)) } else { quote!(::core::option::Option::None) };
        quote! {
            to.pass_changes = true;
            to.input("in", false, true, |reads| { #reads });
            to.output("out", ::millstream::__rt::OutputPlan { keeps: #keeps, adds: #adds, sets_event_times: false, changes: false });
        }
    };
    match form {
        Form::Filter => (
            one_output(quote!(::std::vec::Vec::new()), true),
            quote_spanned!(returns.span()=> #readers ::millstream::__rt::filter::<#returns>(call, answer, #per_row);),
        ),
        Form::Map => {
            let row = quote_spanned!(returns.span()=> <#returns as ::millstream::__rt::Mapped>::Row);
            (
                one_output(quote_spanned!(returns.span()=> <#row as ::millstream::__rt::Row>::fields()), keep),
                quote_spanned!(returns.span()=> #readers ::millstream::__rt::map::<#row, #returns>(call, answer, #per_row);),
            )
        }
        Form::FlatMap => of_parts(handler, Options::STATELESS, true),
        Form::Operator(options) => of_parts(handler, options, false),
    }
}

fn of_parts(handler: &Handler, options: Options, pass_changes: bool) -> (TokenStream, TokenStream) {
    let parts: Vec<&Part> = handler.parameters.parts.iter().collect();
    let (reads, declared) = (handler.declare_arguments(), declare_parts(&parts, options));
    let keyed = options.keyed;
    let ident = &handler.ident;
    let outcome = handler.outcome(&quote!(#ident), "argument", false);
    let rows = Loop { all: &parts, used: parts.clone(), undoable: handler.may_reject() }.tokens(&outcome);
    let readers = handler.readers("argument");
    let pass = pass_changes.then(|| quote!(answer.pass_changes(call);));
    let declare = quote! {
        to.pass_changes = #pass_changes;
        to.input("in", #keyed, #pass_changes, |reads| { #reads });
        #declared
    };
    (declare, quote!(#readers #rows #pass))
}
