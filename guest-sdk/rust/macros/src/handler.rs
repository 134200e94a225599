//! What functions and `impl` blocks share: declaring parameters, and the loop of a handler over the rows of a call.

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::{format_ident, quote, quote_spanned};
use syn::{ReturnType, Signature, spanned::Spanned};

use crate::{
    attributes::{kebab, with_lifetimes},
    parameters::{Parameter, Parameters, Part},
};

/// What stands in `#[millstream::operator(…)]`.
#[derive(Clone, Copy)]
pub struct Options {
    /// It has state or timers per key.
    pub keyed: bool,
    /// It migrates state of older versions; where that is said.
    pub migrates: Option<Span>,
}

impl Options {
    /// Those of an operator without state.
    pub const STATELESS: Self = Self { keyed: false, migrates: None };
}

/// One handler: a function or method, and its parameters.
pub struct Handler {
    pub ident: Ident,
    pub parameters: Parameters,
    pub returns: TokenStream,
}

impl Handler {
    pub fn of(signature: &mut Signature) -> syn::Result<Self> {
        let parameters = Parameters::of(signature)?;
        let returns = match &signature.output {
            ReturnType::Default => quote!(()),
            ReturnType::Type(_, of) => with_lifetimes(quote!(#of), "_"),
        };
        Ok(Self { ident: signature.ident.clone(), parameters, returns })
    }

    /// Statements that declare what the arguments read, on `reads`.
    pub fn declare_arguments(&self) -> TokenStream {
        self.parameters
            .all
            .iter()
            .filter_map(|parameter| match parameter {
                Parameter::Argument { column, of } => {
                    Some(quote_spanned!(of.span()=> <#of as ::millstream::__rt::Argument<'_>>::declare(#column, reads);))
                }
                _ => None,
            })
            .collect()
    }

    /// `let` statements for the readers, named with `prefix`; `columns` is in scope.
    pub fn readers(&self, prefix: &str) -> TokenStream {
        self.each_argument(|index, of| {
            let reader = format_ident!("__{prefix}{index}");
            quote_spanned!(of.span()=> let #reader = <#of as ::millstream::__rt::Argument<'_>>::reader(call, &mut columns)?;)
        })
    }

    fn each_argument(&self, make: impl Fn(usize, &TokenStream) -> TokenStream) -> TokenStream {
        let arguments = self.parameters.all.iter().enumerate().filter_map(|(index, parameter)| match parameter {
            Parameter::Argument { of, .. } => Some((index, of)),
            _ => None,
        });
        arguments.map(|(index, of)| make(index, of)).collect()
    }

    /// The arguments of the call of the handler at `__at`; parts are in `__part_<name>`. `due`: for a due timer.
    pub fn arguments(&self, prefix: &str, due: bool) -> Vec<TokenStream> {
        let one = |(index, parameter): (usize, &Parameter)| match parameter {
            Parameter::Argument { of, .. } => {
                let reader = format_ident!("__{prefix}{index}");
                match due {
                    false => quote_spanned!(of.span()=> <#of as ::millstream::__rt::Argument<'_>>::get(&#reader, __at.row)),
                    true => quote_spanned!(of.span()=> <#of as ::millstream::__rt::Argument<'_>>::get_due(&#reader, __at)),
                }
            }
            Parameter::Part(ident) => {
                let slots = part_slots(ident);
                let part = self.parameters.parts.iter().find(|part| part.ident == *ident).expect("it was listed with the parameters");
                let of = &part.of;
                quote_spanned!(of.span()=> <#of as ::millstream::__rt::Part>::handle(&mut #slots, __at))
            }
            Parameter::Settings => quote!(&self.settings),
        };
        self.parameters.all.iter().enumerate().map(one).collect()
    }

    /// Whether the handler may reject a row: a constant expression.
    pub fn may_reject(&self) -> TokenStream {
        let returns = &self.returns;
        quote_spanned!(returns.span()=> <#returns as ::millstream::__rt::Outcome>::MAY_REJECT)
    }

    /// The outcome of calling `callee` with `arguments`, as a `Result<(), Reject>`.
    pub fn outcome(&self, callee: &TokenStream, prefix: &str, due: bool) -> TokenStream {
        let (returns, arguments) = (&self.returns, self.arguments(prefix, due));
        quote_spanned!(returns.span()=> <#returns as ::millstream::__rt::Outcome>::into_result(#callee(#(#arguments),*)))
    }
}

/// The variable with the slots of a part.
pub fn part_slots(ident: &Ident) -> Ident {
    format_ident!("__part_{}", crate::attributes::plain(ident))
}

/// Statements that declare `parts`, on `to`.
pub fn declare_parts(parts: &[&Part], options: Options) -> TokenStream {
    let Options { keyed, migrates } = options;
    let one = |part: &&Part| {
        let (of, name, options) = (&part.of, kebab(&part.ident), part.options.tokens());
        let message = "state and timers are kept per key: write #[millstream::operator(keyed)]";
        let key = (!keyed).then(|| refuse(of, &quote!(<#of as ::millstream::__rt::Part>::NEEDS_KEY), message));
        let message = "this state migrates values of older versions: write #[millstream::operator(keyed, migrates)]";
        let migration = migrates.is_none().then(|| refuse(of, &quote!(<#of as ::millstream::__rt::Part>::MIGRATES), message));
        quote_spanned! {of.span()=>
            #key
            #migration
            let index = <#of as ::millstream::__rt::Part>::declare(#name, #options, to);
            to.part(index);
        }
    };
    let declared: TokenStream = parts.iter().map(one).collect();
    let nothing = migrates.map(|span| {
        let types = parts.iter().map(|part| &part.of);
        let message = "no state of this operator migrates anything: say at its type what it does, #[state(version = 2, migrates(SeenV1))]";
        quote_spanned!(span=> const _: () = ::core::assert!(false #(|| <#types as ::millstream::__rt::Part>::MIGRATES)*, #message);)
    });
    quote!(#declared #nothing)
}

/// A compile error, at the type `of`, if `wrong` is true of it.
pub fn refuse(of: &TokenStream, wrong: &TokenStream, message: &str) -> TokenStream {
    let assertion = quote_spanned!(of.span()=> ::core::assert!(!#wrong, #message));
    // `cargo check` evaluates constant items only, but they cannot say `Self`.
    match of.clone().into_iter().any(|token| matches!(token, TokenTree::Ident(ident) if ident == "Self")) {
        true => quote_spanned!(of.span()=> const { #assertion };),
        false => quote_spanned!(of.span()=> const _: () = #assertion;),
    }
}

/// What happens to each part around the loop and around each row. `all` are the operator's parts, in order of declaration.
pub struct Loop<'p> {
    pub all: &'p [&'p Part],
    pub used: Vec<&'p Part>,
    pub undoable: TokenStream,
}

impl Loop<'_> {
    /// The loop: `outcome` handles the row at `__at`.
    pub fn tokens(&self, outcome: &TokenStream) -> TokenStream {
        let begin =
            self.each(|slots, of, index| quote!(let mut #slots = <#of as ::millstream::__rt::Part>::begin(call, layout.parts[#index])?;));
        let enter = self.each(|slots, of, _| quote!(<#of as ::millstream::__rt::Part>::enter(&mut #slots, __at, __UNDOABLE);));
        let undo = self.each(|slots, of, _| quote!(<#of as ::millstream::__rt::Part>::undo(&mut #slots, __at);));
        let finish =
            self.each(|slots, of, index| quote!(<#of as ::millstream::__rt::Part>::finish(#slots, layout.parts[#index], call, answer)?;));
        let undoable = &self.undoable;
        quote! {
            #[allow(non_snake_case, reason = "generated")]
            let __UNDOABLE = const { #undoable };
            #begin
            for __row in 0..call.length {
                ::millstream::__rt::panics::enter(__row);
                let __at = call.at(__row);
                #enter
                if let ::core::result::Result::Err(__reject) = #outcome {
                    #undo
                    answer.reject(__row, __reject);
                }
            }
            #finish
        }
    }

    fn each(&self, make: impl Fn(&Ident, &TokenStream, usize) -> TokenStream) -> TokenStream {
        let one = |part: &&Part| {
            let index = self.all.iter().position(|other| other.ident == part.ident).expect("every used part is declared");
            make(&part_slots(&part.ident), &part.of, index)
        };
        self.used.iter().map(one).collect()
    }
}
