//! `#[millstream::operator]`: an `impl` block whose methods handle inputs and timers (or one function, see [`crate::function`]).

use proc_macro2::{Ident, TokenStream};
use quote::quote;
use syn::{Attribute, Error, FnArg, ImplItem, Item, ItemImpl, LitStr, Result, Type, parse::Parser, spanned::Spanned};

use crate::{
    attributes::{kebab, plain, summary, take},
    export,
    function::{self, Form},
    handler::{Handler, Loop, Options, declare_parts, refuse},
    parameters::{Parameter, Part},
};

/// A method that handles an input.
struct Input {
    name: String,
    handler: Handler,
}

/// A method that handles a timer.
struct OnTimer {
    timer: Ident,
    handler: Handler,
}

/// What the `impl` block says.
#[derive(Default)]
struct Implementation {
    inputs: Vec<Input>,
    timers: Vec<OnTimer>,
    /// What is asked over HTTP for each row of the only input.
    request: Option<Handler>,
    /// The settings that `open` takes, if there is an `open`.
    open: Option<Option<Type>>,
}

pub fn expand(options: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let options = parse_options(options)?;
    match syn::parse2::<Item>(item.clone())? {
        Item::Fn(_) => function::expand(TokenStream::new(), item, Form::Operator(options)),
        Item::Impl(block) => expand_impl(block, options),
        other => Err(Error::new(other.span(), "put #[millstream::operator] on a function, or on an `impl` block with its handlers")),
    }
}

fn parse_options(options: TokenStream) -> Result<Options> {
    let mut found = Options::STATELESS;
    let parser = syn::meta::parser(|meta| {
        if meta.path.is_ident("keyed") {
            found.keyed = true;
        } else if meta.path.is_ident("migrates") {
            found.migrates = Some(meta.path.span());
        } else {
            let message = "an operator has the options `keyed` (it has state or timers per key) and `migrates` (state of older versions)";
            return Err(meta.error(message));
        }
        Ok(())
    });
    parser.parse2(options)?;
    match found.migrates {
        Some(span) if !found.keyed => Err(Error::new(span, "only state is migrated, and state is kept per key: write `keyed, migrates`")),
        _ => Ok(found),
    }
}

fn expand_impl(mut block: ItemImpl, options: Options) -> Result<TokenStream> {
    let Type::Path(path) = &*block.self_ty else {
        return Err(Error::new(block.self_ty.span(), "an operator is a struct"));
    };
    let ident = path
        .path
        .require_ident()
        .map_err(|error| Error::new(error.span(), "an operator is a struct of this crate, without generics"))?
        .clone();
    let about = export::about(&summary(&block.attrs));
    let found = read(&mut block)?;
    let parts = all_parts(&found);
    check(&found, &parts, &ident)?;
    let declare = declare(&found, &parts, options);
    let process = process(&found, &parts);
    let on_timers = on_timers(&found, &parts);
    let (schema, parse) = export::settings(found.open.as_ref().and_then(Option::as_ref));
    let open = match &found.open {
        Some(Some(_)) => quote!(Self::open(#parse)),
        Some(None) => quote!({ #parse; Self::open() }),
        None => quote!({ #parse; ::core::result::Result::Ok(<Self as ::core::default::Default>::default()) }),
    };
    let exports = export::operator(&ident, options.migrates.is_some());
    Ok(quote! {
        #block

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
                port: usize,
                call: &::millstream::__rt::Call<'_>,
                answer: &mut ::millstream::__rt::Answer,
            ) -> ::core::result::Result<(), ::millstream::__rt::Malformed> {
                #process
            }

            #on_timers
        }

        #exports
    })
}

/// Sorts the methods, and strips the attributes that are ours.
fn read(block: &mut ItemImpl) -> Result<Implementation> {
    let mut found = Implementation::default();
    for item in &mut block.items {
        let ImplItem::Fn(method) = item else { continue };
        let input = take(&mut method.attrs, "input").into_iter().next();
        let timer = take(&mut method.attrs, "on_timer").into_iter().next();
        let signature = &mut method.sig;
        if let Some(attribute) = timer {
            let timer =
                attribute.parse_args::<Ident>().map_err(|error| Error::new(error.span(), "name the timer: #[on_timer(missing)]"))?;
            found.timers.push(OnTimer { timer, handler: Handler::of(signature)? });
        } else if input.is_some() || signature.ident == "process" {
            let name = input_name(input.as_ref(), &signature.ident)?;
            found.inputs.push(Input { name, handler: Handler::of(signature)? });
        } else if signature.ident == "request" {
            found.request = Some(Handler::of(signature)?);
        } else if signature.ident == "open" {
            found.open = Some(match signature.inputs.first() {
                Some(FnArg::Typed(typed)) => Some((*typed.ty).clone()),
                Some(FnArg::Receiver(receiver)) => {
                    return Err(Error::new(receiver.span(), "`open` makes the operator: `fn open(settings: T) -> Result<Self, String>`"));
                }
                None => None,
            });
        }
    }
    Ok(found)
}

fn input_name(attribute: Option<&Attribute>, method: &Ident) -> Result<String> {
    let Some(attribute) = attribute else {
        return Ok("in".into());
    };
    let mut name = kebab(method);
    if !matches!(attribute.meta, syn::Meta::Path(_)) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("name") {
                return Err(meta.error("an input has only `name = \"…\"`"));
            }
            name = meta.value()?.parse::<LitStr>()?.value();
            Ok(())
        })?;
    }
    Ok(name)
}

/// Every part of every handler once, in order of first appearance; options may stand at any of its appearances.
fn all_parts(found: &Implementation) -> Vec<&Part> {
    let mut parts: Vec<&Part> = Vec::new();
    let handlers = found.inputs.iter().map(|input| &input.handler).chain(found.timers.iter().map(|timer| &timer.handler));
    for part in handlers.flat_map(|handler| &handler.parameters.parts) {
        if !parts.iter().any(|known| known.ident == part.ident) {
            parts.push(part);
        }
    }
    parts
}

fn check(found: &Implementation, parts: &[&Part], ident: &Ident) -> Result<()> {
    if found.inputs.is_empty() {
        return Err(Error::new(ident.span(), "this operator handles no input: write `fn process(&mut self, row: Row, out: &mut Out<T>)`"));
    }
    if parts.is_empty() {
        return Err(Error::new(ident.span(), "this operator has no output: take `out: &mut Out<T>`, where T has #[derive(Row)]"));
    }
    if let Some(request) = &found.request {
        if let [_, second, ..] = found.inputs.as_slice() {
            return Err(Error::new(second.handler.ident.span(), "an operator with `fn request` has one input: `fn process`"));
        }
        if let Some(part) = request.parameters.parts.first() {
            return Err(Error::new(
                part.ident.span(),
                "`fn request` takes rows and columns by value; state and outputs are for `fn process`",
            ));
        }
    }
    let handlers = found.inputs.iter().map(|input| &input.handler).chain(found.timers.iter().map(|timer| &timer.handler));
    for handler in handlers.chain(&found.request) {
        if let Some(settings) = &handler.parameters.settings {
            return Err(Error::new(settings.span(), "keep settings in `self`: `fn open(settings: T) -> Result<Self, String>`"));
        }
    }
    for OnTimer { timer, .. } in &found.timers {
        if !parts.iter().any(|part| part.ident == *timer) {
            let name = plain(timer);
            return Err(Error::new(
                timer.span(),
                format!("no handler sets the timer `{name}`: take `{name}: &mut EventTimer` (or ProcessingTimer)"),
            ));
        }
    }
    Ok(())
}

fn declare(found: &Implementation, parts: &[&Part], options: Options) -> TokenStream {
    let keyed = options.keyed;
    let inputs = found.inputs.iter().map(|Input { name, handler }| {
        // In the order in which their readers are made.
        let requests = found.request.as_ref().map(|request| {
            let reads = request.declare_arguments();
            quote!(#reads reads.requests = true;)
        });
        let reads = handler.declare_arguments();
        quote!(to.input(#name, #keyed, false, |reads| { #requests #reads });)
    });
    let timers = found.timers.iter().map(|OnTimer { handler, .. }| {
        let reads = handler.declare_arguments();
        quote!(to.timer_handler(|reads| { #reads });)
    });
    let unhandled = parts.iter().filter(|part| !found.timers.iter().any(|handler| handler.timer == part.ident)).map(|part| {
        let of = &part.of;
        let message = format!("nothing handles this timer: write a method with #[on_timer({})]", plain(&part.ident));
        refuse(of, &quote!(<#of as ::millstream::__rt::Part>::IS_TIMER), &message)
    });
    let unhandled: TokenStream = unhandled.collect();
    let declared = declare_parts(parts, options);
    quote! { #(#inputs)* #(#timers)* #unhandled #declared }
}

fn callee(handler: &Handler) -> (TokenStream, bool) {
    let ident = &handler.ident;
    (quote!(Self::#ident), handler.parameters.receiver.is_some())
}

/// The outcome of the handler, with `self` before its arguments if it takes it.
fn outcome(handler: &Handler, prefix: &str, due: bool) -> TokenStream {
    let (path, with_self) = callee(handler);
    let (returns, arguments) = (&handler.returns, handler.arguments(prefix, due));
    let receiver = with_self.then(|| quote!(self,));
    quote::quote_spanned!(returns.span()=> <#returns as ::millstream::__rt::Outcome>::into_result(#path(#receiver #(#arguments),*)))
}

/// Asks over HTTP for every row, before the first is handled.
fn requests(request: &Handler) -> TokenStream {
    let readers = request.readers("request");
    let (path, with_self) = callee(request);
    let receiver = with_self.then(|| quote!(self,));
    let (returns, arguments) = (&request.returns, request.arguments("request", false));
    quote::quote_spanned! {returns.span()=>
        #readers
        ::millstream::__rt::ask::<#returns>(call, |__row| {
            let __at = call.at(__row);
            #path(#receiver #(#arguments),*)
        });
    }
}

fn process(found: &Implementation, parts: &[&Part]) -> TokenStream {
    let arms = found.inputs.iter().enumerate().map(|(port, Input { handler, .. })| {
        let requests = found.request.as_ref().map(requests);
        let readers = handler.readers("argument");
        let used = parts.iter().filter(|part| handler.parameters.parts.iter().any(|own| own.ident == part.ident)).copied().collect();
        let rows = Loop { all: parts, used, undoable: handler.may_reject() }.tokens(&outcome(handler, "argument", false));
        quote! {
            #port => {
                let mut columns = ::millstream::__rt::Columns::new(call, &layout.columns[#port]);
                #requests
                #readers
                #rows
                ::core::result::Result::Ok(())
            }
        }
    });
    quote! {
        match port {
            #(#arms)*
            _ => ::core::result::Result::Err(::millstream::__rt::Malformed("there is no such input")),
        }
    }
}

fn on_timers(found: &Implementation, parts: &[&Part]) -> TokenStream {
    if found.timers.is_empty() {
        return TokenStream::new();
    }
    let used = |part: &&&Part| found.timers.iter().any(|timer| timer.handler.parameters.parts.iter().any(|own| own.ident == part.ident));
    let used = parts.iter().filter(used).copied().collect();
    let readers = found.timers.iter().enumerate().map(|(index, OnTimer { handler, .. })| {
        let readers = handler.readers(&format!("timer{index}_"));
        let columns = handler.parameters.all.iter().any(|parameter| matches!(parameter, Parameter::Argument { .. }));
        let columns = columns.then(|| quote!(let mut columns = ::millstream::__rt::Columns::of_keys(call, &layout.timer_columns[#index]);));
        quote!(#columns #readers)
    });
    let arms = found.timers.iter().enumerate().map(|(index, OnTimer { timer, handler })| {
        let part = parts.iter().position(|part| part.ident == *timer).expect("checked above");
        let outcome = outcome(handler, &format!("timer{index}_"), true);
        quote!(__timer if __timer == layout.parts[#part] => #outcome,)
    });
    let outcome = quote! {
        match u32::from_le_bytes(timers[__row]) as usize {
            #(#arms)*
            _ => return ::core::result::Result::Err(::millstream::__rt::Malformed("there is no such timer")),
        }
    };
    let undoable = found.timers.iter().map(|timer| timer.handler.may_reject()).reduce(|one, other| quote!(#one || #other));
    let rows = Loop { all: parts, used, undoable: undoable.unwrap_or_else(|| quote!(false)) }.tokens(&outcome);
    quote! {
        fn on_timers(
            &mut self,
            layout: &::millstream::__rt::Layout,
            timers: &[[u8; 4]],
            call: &::millstream::__rt::Call<'_>,
            answer: &mut ::millstream::__rt::Answer,
        ) -> ::core::result::Result<(), ::millstream::__rt::Malformed> {
            #(#readers)*
            #rows
            ::core::result::Result::Ok(())
        }
    }
}
