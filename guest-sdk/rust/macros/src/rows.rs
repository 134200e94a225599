//! `#[derive(Row)]` and `#[derive(State)]`: a struct as columns.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{Data, DeriveInput, Error, Fields, GenericParam, Ident, LitStr, Result, spanned::Spanned};

use crate::attributes::{Options, plain, with_lifetimes};

/// What the struct is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Row,
    State,
}

impl Purpose {
    fn name(self) -> &'static str {
        match self {
            Self::Row => "Row",
            Self::State => "State",
        }
    }
}

/// One field of the struct.
struct Field {
    ident: Ident,
    /// Of the field in readers and builders; unlike `ident` it is never raw.
    slot: Ident,
    column: String,
    /// The type, borrowing for `'__a`.
    borrowed: TokenStream,
    /// The type, borrowing for `'static`.
    fixed: TokenStream,
}

pub fn derive(input: &DeriveInput, purpose: Purpose) -> Result<TokenStream> {
    let fields = fields(input, purpose)?;
    let (generics, of_type) = generics(input, purpose)?;
    let ident = &input.ident;
    let target = quote!(#ident #of_type);
    let value = value_impls(&target, &generics, &fields);
    let own = match purpose {
        Purpose::Row => row_impls(&target, &generics, &fields),
        Purpose::State => state_impl(input, &target)?,
    };
    Ok(quote! {
        const _: () = {
            #value
            #own
        };
    })
}

fn fields(input: &DeriveInput, purpose: Purpose) -> Result<Vec<Field>> {
    let name = purpose.name();
    let message = format!("#[derive({name})] wants a struct with named fields, one per column: `struct Bid {{ price: i64 }}`");
    let Data::Struct(data) = &input.data else {
        return Err(Error::new(input.ident.span(), message));
    };
    let Fields::Named(named) = &data.fields else {
        return Err(Error::new(input.ident.span(), message));
    };
    let one = |(index, field): (usize, &syn::Field)| {
        let ident = field.ident.clone().expect("fields are named");
        let borrowed = with_lifetimes(field.ty.to_token_stream(), "__a");
        let fixed = with_lifetimes(field.ty.to_token_stream(), "static");
        Ok(Field { column: column_name(field, &ident)?, slot: format_ident!("field_{index}"), borrowed, fixed, ident })
    };
    named.named.iter().enumerate().map(one).collect()
}

fn column_name(field: &syn::Field, ident: &Ident) -> Result<String> {
    let mut name = None;
    for attribute in field.attrs.iter().filter(|attribute| attribute.path().is_ident("row") || attribute.path().is_ident("state")) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("name") {
                return Err(meta.error("a field has only `name = \"…\"`"));
            }
            let text: LitStr = meta.value()?.parse()?;
            if text.value().is_empty() || text.value().contains(['"', '\'', '\\']) {
                return Err(Error::new(text.span(), "a column name is not empty and has no quotes or backslashes"));
            }
            name = Some(text.value());
            Ok(())
        })?;
    }
    Ok(name.unwrap_or_else(|| plain(ident)))
}

/// The generics of impls that borrow for `'__a`, and those of the type.
fn generics(input: &DeriveInput, purpose: Purpose) -> Result<(TokenStream, TokenStream)> {
    let mut parameters = input.generics.params.iter();
    match (parameters.next(), parameters.next()) {
        (None, _) => Ok((quote!(), quote!())),
        (Some(GenericParam::Lifetime(lifetime)), None) if purpose == Purpose::State => {
            Err(Error::new(lifetime.span(), "state outlives its batch, so it cannot borrow: use String or Vec<u8>"))
        }
        (Some(GenericParam::Lifetime(_)), None) => Ok((quote!(<'__a>), quote!(<'__a>))),
        (Some(GenericParam::Lifetime(_)), Some(second)) => {
            Err(Error::new(second.span(), "a row borrows from one batch: one lifetime is enough"))
        }
        (Some(other), _) => Err(Error::new(other.span(), "a row or state has fixed columns, so it cannot have type parameters")),
    }
}

fn value_impls(target: &TokenStream, generics: &TokenStream, fields: &[Field]) -> TokenStream {
    let builder = builder(fields);
    let reader = reader(target, fields);
    let idents: Vec<_> = fields.iter().map(|field| &field.ident).collect();
    let slots: Vec<_> = fields.iter().map(|field| &field.slot).collect();
    let types = fields.iter().enumerate().map(|(index, field)| {
        let (borrowed, column) = (&field.borrowed, &field.column);
        let comma = (index > 0).then(|| quote!(text.push_str(", ");));
        quote! { #comma ::millstream::__rt::write_field::<#borrowed>(#column, text); }
    });
    quote! {
        #builder
        #reader

        impl #generics ::millstream::__rt::Value for #target {
            type Builder = __Builder;

            fn write_type(text: &mut ::std::string::String) {
                text.push_str("Struct(");
                #(#types)*
                text.push(')');
            }

            #[inline(always)]
            fn append(&self, builder: &mut __Builder) {
                #(::millstream::__rt::Value::append(&self.#idents, &mut builder.#slots);)*
            }

            fn duplicate(&self) -> Self {
                Self { #(#idents: ::millstream::__rt::Value::duplicate(&self.#idents)),* }
            }
        }

        impl #generics ::millstream::__rt::ListItem for #target {}
    }
}

fn builder(fields: &[Field]) -> TokenStream {
    let slots: Vec<_> = fields.iter().map(|field| &field.slot).collect();
    let types = fields.iter().map(|field| {
        let fixed = &field.fixed;
        quote_spanned!(fixed.span()=> <#fixed as ::millstream::__rt::Value>::Builder)
    });
    quote! {
        #[derive(Default)]
        pub struct __Builder { #(#slots: #types),* }

        impl ::millstream::__rt::ColumnBuilder for __Builder {
            fn reserve(&mut self, rows: usize) {
                #(::millstream::__rt::ColumnBuilder::reserve(&mut self.#slots, rows);)*
            }

            fn append_null(&mut self) {
                #(::millstream::__rt::ColumnBuilder::append_null(&mut self.#slots);)*
            }

            fn truncate(&mut self, rows: usize) {
                #(::millstream::__rt::ColumnBuilder::truncate(&mut self.#slots, rows);)*
            }

            fn finish(self, validity: ::std::vec::Vec<u8>, buffers: &mut ::std::vec::Vec<::std::vec::Vec<u8>>) {
                buffers.push(validity);
                #(::millstream::__rt::ColumnBuilder::finish(self.#slots, ::std::vec::Vec::new(), buffers);)*
            }
        }
    }
}

fn reader(target: &TokenStream, fields: &[Field]) -> TokenStream {
    let idents: Vec<_> = fields.iter().map(|field| &field.ident).collect();
    let slots: Vec<_> = fields.iter().map(|field| &field.slot).collect();
    let borrowed: Vec<_> = fields.iter().map(|field| &field.borrowed).collect();
    let types =
        borrowed.iter().map(|borrowed| quote_spanned!(borrowed.span()=> <#borrowed as ::millstream::__rt::ReadValue<'__a>>::Reader));
    quote! {
        pub struct __Reader<'__a> {
            #(#slots: #types,)*
            lifetime: ::core::marker::PhantomData<&'__a ()>,
        }

        impl<'__a> ::millstream::__rt::ReadValue<'__a> for #target {
            type Reader = __Reader<'__a>;

            fn reader_of_values(
                buffers: &mut ::millstream::__rt::Buffers<'__a>,
                length: usize,
            ) -> ::core::result::Result<__Reader<'__a>, ::millstream::__rt::Malformed> {
                ::core::result::Result::Ok(__Reader {
                    #(#slots: <#borrowed as ::millstream::__rt::ReadValue<'__a>>::reader(buffers, length)?,)*
                    lifetime: ::core::marker::PhantomData,
                })
            }

            #[inline(always)]
            fn get(reader: &__Reader<'__a>, row: usize) -> Self {
                Self { #(#idents: <#borrowed as ::millstream::__rt::ReadValue<'__a>>::get(&reader.#slots, row)),* }
            }

            #[inline]
            fn same(&self, reader: &__Reader<'__a>, row: usize) -> bool {
                true #(&& <#borrowed as ::millstream::__rt::ReadValue<'__a>>::same(&self.#idents, &reader.#slots, row))*
            }
        }
    }
}

fn row_impls(target: &TokenStream, generics: &TokenStream, fields: &[Field]) -> TokenStream {
    let slots: Vec<_> = fields.iter().map(|field| &field.slot).collect();
    let borrowed: Vec<_> = fields.iter().map(|field| &field.borrowed).collect();
    let columns: Vec<_> = fields.iter().map(|field| &field.column).collect();
    quote! {
        impl #generics ::millstream::__rt::Row for #target {
            fn fields() -> ::std::vec::Vec<::millstream::__rt::Field> {
                ::std::vec![#(::millstream::__rt::Field {
                    name: ::std::string::String::from(#columns),
                    data_type: <#borrowed as ::millstream::__rt::Value>::data_type(),
                    nullable: <#borrowed as ::millstream::__rt::Value>::NULLABLE,
                }),*]
            }

            fn finish_columns(builder: __Builder, length: usize, columns: &mut ::std::vec::Vec<::millstream::__rt::Column>) {
                #(columns.push(::millstream::__rt::finish_column(builder.#slots, length));)*
            }
        }

        impl<'__a> ::millstream::__rt::ReadRow<'__a> for #target {
            fn reader_of_columns(
                columns: &mut ::millstream::__rt::Columns<'_, '__a>,
            ) -> ::core::result::Result<__Reader<'__a>, ::millstream::__rt::Malformed> {
                ::core::result::Result::Ok(__Reader {
                    #(#slots: columns.read::<#borrowed>()?,)*
                    lifetime: ::core::marker::PhantomData,
                })
            }
        }

        impl<'__a> ::millstream::__rt::Argument<'__a> for #target {
            type Reader = __Reader<'__a>;

            fn declare(_: &str, reads: &mut ::millstream::__rt::Reads) {
                for field in <Self as ::millstream::__rt::Row>::fields() {
                    reads.column(field);
                }
            }

            fn reader(
                _: &::millstream::__rt::Call<'__a>,
                columns: &mut ::millstream::__rt::Columns<'_, '__a>,
            ) -> ::core::result::Result<__Reader<'__a>, ::millstream::__rt::Malformed> {
                <Self as ::millstream::__rt::ReadRow<'__a>>::reader_of_columns(columns)
            }

            #[inline(always)]
            fn get(reader: &__Reader<'__a>, row: usize) -> Self {
                <Self as ::millstream::__rt::ReadValue<'__a>>::get(reader, row)
            }
        }
    }
}

fn state_impl(input: &DeriveInput, target: &TokenStream) -> Result<TokenStream> {
    let attributes: Vec<_> = input.attrs.iter().filter(|attribute| attribute.path().is_ident("state")).cloned().collect();
    let options = Options::parse(&attributes)?;
    if options.name.is_some() {
        return Err(Error::new(Span::call_site(), "a state is named by its parameter: `#[state(name = \"…\")] seen: &mut Seen`"));
    }
    if let Some(first) = options.migrates.first().filter(|_| options.version.unwrap_or(1) == 1) {
        return Err(Error::new(
            first.span(),
            "the first version of a state has nothing to migrate: raise it, `#[state(version = 2, migrates(…))]`",
        ));
    }
    let (version, ttl) = (options.version.unwrap_or(1), options.ttl_tokens());
    let migrations = options.migrates.iter().map(|old| quote_spanned!(old.span()=> ::millstream::__rt::Migration::of::<#old, #target>()));
    Ok(quote! {
        impl ::millstream::__rt::State for #target {
            const VERSION: u32 = #version;
            const TTL: ::core::option::Option<::millstream::__rt::Ttl> = #ttl;
            const MIGRATIONS: &'static [::millstream::__rt::Migration] = &[#(#migrations),*];
        }
    })
}
