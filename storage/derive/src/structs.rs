//! Records that are structs: named fields, tuple structs and unit structs.

use quote::quote;
use syn::{Fields, Index};

use crate::record::{Names, Parts, archived_of, docs, function, resolver_of};

/// The parts of a struct.
///
/// The archived struct is `repr(C)` with the same fields; the resolver is the tuple of the fields' resolvers.
pub(crate) fn parts(names: &Names<'_>, fields: &Fields) -> Parts {
    let Names { name, vis, archived, rkyv, .. } = names;
    let members: Vec<_> = fields.members().collect();
    let types: Vec<_> = fields.iter().map(|f| &f.ty).collect();
    let indices: Vec<_> = (0..members.len()).map(Index::from).collect();

    let resolver_types = types.iter().map(|ty| resolver_of(names, ty));
    let is_plain = types.iter().map(|ty| function(names, "is_plain", ty));
    let resolve = types.iter().map(|ty| function(names, "resolve", ty));
    let serialize = types.iter().map(|ty| function(names, "serialize", ty));
    let deserialize = types.iter().map(|ty| function(names, "deserialize", ty));

    let archived_fields = fields.iter().map(|field| {
        let (vis, ident, colon, ty) = (&field.vis, &field.ident, &field.colon_token, &field.ty);
        let archived = archived_of(names, ty);
        let docs = docs(&field.attrs, "The field in its archived form.");
        quote!(#docs #[bytecheck(omit_bounds)] #vis #ident #colon #archived,)
    });
    let body = match fields {
        Fields::Named(_) => quote!({ #(#archived_fields)* }),
        Fields::Unnamed(_) => quote!((#(#archived_fields)*);),
        Fields::Unit => quote!(;),
    };

    Parts {
        archived_type: quote!(#[repr(C)] #vis struct #archived #body),
        items: quote!(),
        resolver: quote!((#(#resolver_types,)*)),
        copy: quote! {
            ::core::mem::size_of::<#name>() == ::core::mem::size_of::<#archived>()
                && ::core::mem::align_of::<#name>() == ::core::mem::align_of::<#archived>()
                && ::core::mem::size_of::<#name>() == 0 #(+ ::core::mem::size_of::<#types>())*
                #(
                    && #is_plain()
                    && ::core::mem::offset_of!(#name, #members)
                        == ::core::mem::offset_of!(#archived, #members)
                )*
        },
        resolve: quote! {
            #(
                // SAFETY: the pointer is to a field of the place.
                let field = unsafe {
                    let field = ::core::ptr::addr_of_mut!((*out.ptr()).#members);
                    #rkyv::Place::from_field_unchecked(out, field)
                };
                #resolve(&self.#members, resolver.#indices, field);
            )*
        },
        serialize: quote! {
            (#(
                #serialize(&self.#members, serializer)?,
            )*)
        },
        deserialize: quote! {
            #name {
                #(
                    #members: #deserialize(&self.#members, deserializer)?,
                )*
            }
        },
    }
}
