//! Bytes that are no operator, or more of something than an operator may have.

use wasm_encoder::{
    BlockType, CodeSection, Component, ComponentExportKind, ComponentExportSection, ComponentInstanceSection, ComponentTypeSection,
    Encode as _, Function, FunctionSection, Instruction, Module, TypeSection, ValType,
};

use crate::{
    guests::Bytes,
    puppet::{self, Puppet},
};

/// A good operator.
pub fn good() -> Bytes {
    Puppet::silent().component()
}

/// A good operator that is not the same as any other number's.
pub fn good_number(number: u32) -> Bytes {
    let name = format!("number {number}").into_bytes();
    // Section 0: its size, then its name with its length (WebAssembly core specification, 5.5.3; components have it as well).
    let mut section = vec![name.len() as u8];
    section.extend(name);
    behind(&good(), 0, &section)
}

/// A component with one more section.
fn behind(component: &[u8], id: u8, content: &[u8]) -> Bytes {
    let mut bytes = component.to_vec();
    bytes.push(id);
    content.len().encode(&mut bytes);
    bytes.extend(content);
    bytes.into()
}

pub fn no_wasm() -> Bytes {
    b"#!/bin/sh\nexec cat /etc/passwd\n"[..].into()
}

pub fn core_module() -> Bytes {
    puppet::core_importer("env", "system").into()
}

pub fn zeros() -> Bytes {
    vec![0; 32 << 20].into()
}

/// A good operator with another core module beside its own, which nobody makes an instance of: it is compiled all the same.
fn with_module(types: u32, bodies: &[Function]) -> Bytes {
    let (mut declared, mut functions, mut code) = (TypeSection::new(), FunctionSection::new(), CodeSection::new());
    declared.ty().function([ValType::I32], []);
    (0..types).for_each(|_| declared.ty().function([], []));
    for body in bodies {
        functions.function(0);
        code.function(body);
    }
    let mut module = Module::new();
    module.section(&declared).section(&functions).section(&code);
    behind(&good(), 1, &module.finish())
}

/// As many function types as there may be.
pub fn many_types() -> Bytes {
    with_module(999_999, &[])
}

/// A function type more than there may be.
pub fn too_many_types() -> Bytes {
    with_module(1_000_000, &[])
}

/// A hundred components, each in the one before, the first in a good one.
pub fn nested_components() -> Bytes {
    let mut inner = Component::new().finish();
    for _ in 0..99 {
        inner = behind(&Component::new().finish(), 4, &inner).to_vec();
    }
    behind(&good(), 4, &inner)
}

/// A hundred lists of lists, as a type.
pub fn nested_types() -> Bytes {
    let mut types = ComponentTypeSection::new();
    types.defined_type().primitive(wasm_encoder::PrimitiveValType::U8);
    for depth in 0..100 {
        types.defined_type().list(wasm_encoder::ComponentValType::Type(depth));
    }
    let mut only = Component::new();
    only.section(&types);
    // Behind the preamble of eight bytes; numbers of types are those of the component that they stand in, so it is one of its own.
    behind(&good(), 4, &only.finish())
}

fn with_body(body: Function) -> Bytes {
    with_module(0, &[body])
}

/// A function of 7 MB: numbers that depend on each other.
pub fn large_function() -> Bytes {
    let mut body = Function::new([]);
    body.instruction(&Instruction::LocalGet(0));
    for _ in 0..1_000_000 {
        // 7 bytes.
        body.instruction(&Instruction::I32Const(0x1234_5678)).instruction(&Instruction::I32Xor);
    }
    body.instruction(&Instruction::Drop).instruction(&Instruction::End);
    with_body(body)
}

/// A function that is larger than any may be.
pub fn too_large_function() -> Bytes {
    let mut body = Function::new([]);
    for _ in 0..4_000_000 {
        body.instruction(&Instruction::LocalGet(0)).instruction(&Instruction::Drop);
    }
    body.instruction(&Instruction::End);
    with_body(body)
}

/// A hundred thousand blocks, each in the one before.
pub fn nested_blocks() -> Bytes {
    let mut body = Function::new([]);
    for _ in 0..100_000 {
        body.instruction(&Instruction::Block(BlockType::Empty));
    }
    for _ in 0..100_001 {
        body.instruction(&Instruction::End);
    }
    with_body(body)
}

/// Seven million targets, all of them the end.
pub fn huge_br_table() -> Bytes {
    let targets = vec![0; 7_000_000];
    let mut body = Function::new([]);
    body.instruction(&Instruction::LocalGet(0)).instruction(&Instruction::BrTable(targets.into(), 0)).instruction(&Instruction::End);
    with_body(body)
}

/// Three hundred functions with as many locals as a function may have, in a few bytes each.
pub fn many_locals() -> Bytes {
    let body = || {
        let mut body = Function::new([(49_000, ValType::I64)]);
        body.instruction(&Instruction::LocalGet(40_000)).instruction(&Instruction::LocalSet(30_000)).instruction(&Instruction::End);
        body
    };
    with_module(0, &(0..300).map(|_| body()).collect::<Vec<_>>())
}

/// More locals than a function may have.
pub fn too_many_locals() -> Bytes {
    let mut body = Function::new([(50_001, ValType::I32)]);
    body.instruction(&Instruction::End);
    with_body(body)
}

/// Ten thousand imports, none of them granted.
pub fn many_imports() -> Bytes {
    use wasm_encoder::{ComponentImportSection, ComponentTypeRef, InstanceType};
    let mut types = ComponentTypeSection::new();
    types.instance(&InstanceType::new());
    let mut imports = ComponentImportSection::new();
    for number in 0..10_000 {
        imports.import(format!("acme:many/i{number}@1.0.0").as_str(), ComponentTypeRef::Instance(0));
    }
    let mut component = Component::new();
    component.section(&types).section(&imports);
    component.finish().into()
}

/// A component that exports these names, all of them an instance without content.
fn exporting(names: &[String]) -> Bytes {
    let mut instances = ComponentInstanceSection::new();
    let nothing: [(&str, ComponentExportKind, u32); 0] = [];
    instances.export_items(nothing);
    let mut exports = ComponentExportSection::new();
    for name in names {
        exports.export(name.as_str(), ComponentExportKind::Instance, 0, None);
    }
    let mut component = Component::new();
    component.section(&instances).section(&exports);
    component.finish().into()
}

/// A good operator that exports the first of its instances under ten thousand names more.
pub fn many_exports() -> Bytes {
    let names: Vec<String> = (0..10_000).map(|number| format!("acme:many/e{number}@1.0.0")).collect();
    with_exports(&names)
}

/// A good operator that exports the first of its instances under these names, too.
fn with_exports(names: &[String]) -> Bytes {
    let mut exports = ComponentExportSection::new();
    for name in names {
        exports.export(name.as_str(), ComponentExportKind::Instance, 0, None);
    }
    let mut section = Vec::new();
    exports.encode(&mut section);
    // The encoding begins with the size, which `behind` writes itself.
    let size = section.iter().position(|byte| byte & 0x80 == 0).map_or(0, |last| last + 1);
    behind(&good(), 11, &section[size..])
}

pub fn forbidden_import() -> Bytes {
    puppet::importer("wasi:sockets/tcp@0.2.0")
}

pub fn forbidden_http() -> Bytes {
    puppet::importer("wasi:http/outgoing-handler@0.2.0")
}

pub fn unknown_import() -> Bytes {
    puppet::importer("acme:secret/api@1.0.0")
}

pub fn other_version_import() -> Bytes {
    puppet::importer("millstream:operator/log@9.0.0")
}

/// The right name, and nothing behind it.
pub fn wrong_export() -> Bytes {
    exporting(&["millstream:operator/operator@0.1.0".to_owned()])
}

/// A granted import with other types.
pub fn wrong_import() -> Bytes {
    // It imports an instance without exports, which the host can give; but it exports no operator either.
    puppet::importer("millstream:operator/log@0.1.0")
}

pub fn exports_of_one_name() -> Bytes {
    exporting(&["acme:twice/e@1.0.0".to_owned(), "acme:twice/e@1.0.0".to_owned()])
}

/// The export of a good operator once more.
pub fn operator_twice() -> Bytes {
    with_exports(&["millstream:operator/operator@0.1.0".to_owned()])
}

pub fn export_with_separators() -> Bytes {
    with_exports(&["../../etc/passwd".to_owned()])
}

pub fn export_with_override() -> Bytes {
    with_exports(&["acme:\u{202e}x/e@1.0.0".to_owned()])
}

pub fn export_with_nul() -> Bytes {
    with_exports(&["acme:x\0/e@1.0.0".to_owned()])
}
