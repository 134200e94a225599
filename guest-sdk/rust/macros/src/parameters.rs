//! The parameters of a handler, by how they are taken: by value (rows, columns, facts), `&mut` (outputs, state, timers), `&` (settings).

use proc_macro2::TokenStream;
use quote::ToTokens;
use syn::{Error, FnArg, Ident, Pat, Receiver, Result, Signature, Type, spanned::Spanned};

use crate::attributes::{Options, plain, take, with_lifetimes};

/// A parameter taken as `&mut`.
pub struct Part {
    pub ident: Ident,
    /// What is behind the `&mut`, lifetimes elided.
    pub of: TokenStream,
    pub options: Options,
}

/// One parameter, in the order of the signature.
pub enum Parameter {
    /// By value: its name as a column, and its type with lifetimes elided.
    Argument { column: String, of: TokenStream },
    /// `&mut`, by the name of a [`Part`].
    Part(Ident),
    /// `&T`: the settings of a function.
    Settings,
}

/// All parameters of a handler.
#[derive(Default)]
pub struct Parameters {
    pub receiver: Option<Receiver>,
    pub all: Vec<Parameter>,
    pub parts: Vec<Part>,
    /// The type of the settings, if it takes them.
    pub settings: Option<Type>,
}

impl Parameters {
    /// Sorts the parameters of `signature`, and strips the attributes that are ours.
    pub fn of(signature: &mut Signature) -> Result<Self> {
        if let Some(parameter) = signature.generics.params.iter().find(|parameter| !matches!(parameter, syn::GenericParam::Lifetime(_))) {
            return Err(Error::new(parameter.span(), "an operator has fixed types, so its handlers cannot be generic"));
        }
        if let Some(token) = &signature.asyncness {
            return Err(Error::new(token.span(), "handlers are not async: what they may wait for, the host has already fetched"));
        }
        let mut parameters = Self::default();
        for input in &mut signature.inputs {
            match input {
                FnArg::Receiver(receiver) if receiver.reference.is_none() => {
                    return Err(Error::new(receiver.span(), "take `&self` or `&mut self`: the operator outlives the row"));
                }
                FnArg::Receiver(receiver) => parameters.receiver = Some(receiver.clone()),
                FnArg::Typed(typed) => parameters.add(typed)?,
            }
        }
        Ok(parameters)
    }

    fn add(&mut self, typed: &mut syn::PatType) -> Result<()> {
        let mut ours = take(&mut typed.attrs, "state");
        ours.extend(take(&mut typed.attrs, "output"));
        let ident = match &*typed.pat {
            Pat::Ident(pattern) => pattern.ident.clone(),
            other => return Err(Error::new(other.span(), "give this parameter a plain name: it names the column, output, state or timer")),
        };
        match &*typed.ty {
            Type::Reference(reference) if reference.mutability.is_some() => {
                let of = with_lifetimes(reference.elem.to_token_stream(), "_");
                self.all.push(Parameter::Part(ident.clone()));
                let options = Options::parse(&ours)?;
                if let Some(old) = options.migrates.first() {
                    return Err(Error::new(old.span(), "what a state migrates stands at its type, beside #[derive(State)]"));
                }
                self.parts.push(Part { ident, of, options });
                return Ok(());
            }
            _ if !ours.is_empty() => {
                return Err(Error::new(typed.ty.span(), "outputs and state are taken as `&mut`"));
            }
            Type::Reference(reference) if !borrows_a_value(&reference.elem) => {
                if self.settings.is_some() {
                    return Err(Error::new(
                        typed.ty.span(),
                        "there is one `&` parameter, the settings; take rows by value and the rest as `&mut`",
                    ));
                }
                self.settings = Some((*reference.elem).clone());
                self.all.push(Parameter::Settings);
            }
            other => {
                let column = plain(&ident).trim_start_matches('_').to_owned();
                self.all.push(Parameter::Argument { column, of: with_lifetimes(other.to_token_stream(), "_") });
            }
        }
        Ok(())
    }
}

/// `&str` and `&[u8]` are values of a column.
fn borrows_a_value(of: &Type) -> bool {
    match of {
        Type::Slice(_) => true,
        Type::Path(path) => path.path.is_ident("str"),
        _ => false,
    }
}
