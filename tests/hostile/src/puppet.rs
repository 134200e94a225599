//! Guests made of strings: core modules whose answers lie ready in memory and whose functions do as they are told, encoded as real
//! components. What no honest compiler would produce is a line here.

use std::{path::PathBuf, sync::Arc};

use wasm_encoder::{
    BlockType, CodeSection, ConstExpr, DataSection, EntityType, ExportKind, ExportSection, Function, FunctionSection, GlobalSection,
    GlobalType, ImportSection, Instruction, MemArg, MemorySection, MemoryType, Module, RefType, StartSection, TableSection, TableType,
    TypeSection, ValType,
};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::{
    abi::{Memory, Value},
    contract::{Descriptor, Failure, Planned, Signature, Turn},
};

/// What a function of the guest does.
#[derive(Clone)]
pub enum Act {
    /// Answers with what lies at this address.
    Answer(u32),
    /// Runs these instructions; they leave the address of the answer, or never end.
    Run(Vec<Instruction<'static>>),
}

/// An operator component in the making.
pub struct Puppet {
    pub memory: Memory,
    pub describe: Act,
    pub plan: Act,
    pub open: Act,
    pub process: Act,
    pub on_timers: Act,
    /// What it does with state of an older version; none: it does not export `migration`.
    pub migrate: Option<Act>,
}

/// An `Act` that loops for ever.
pub fn loop_for_ever() -> Act {
    Act::Run(vec![Instruction::Loop(BlockType::Empty), Instruction::Br(0), Instruction::End, Instruction::Unreachable])
}

/// An `Act` that traps.
pub fn trap() -> Act {
    Act::Run(vec![Instruction::Unreachable])
}

/// An `Act` that grows memory by 1 MiB until it may not, then traps as an allocator would.
pub fn grow_for_ever() -> Act {
    Act::Run(vec![
        Instruction::Loop(BlockType::Empty),
        Instruction::I32Const(16),
        Instruction::MemoryGrow(0),
        Instruction::I32Const(-1),
        Instruction::I32Ne,
        Instruction::BrIf(0),
        Instruction::End,
        Instruction::Unreachable,
    ])
}

/// An `Act` that calls itself for ever (it is the puppet's function `recurse`).
pub fn recurse_for_ever() -> Act {
    Act::Run(vec![Instruction::Call(RECURSE)])
}

/// An `Act` that answers with the column that is the function's parameter number `first` and the two behind it. `answer`: where any good column lies.
pub fn give_back(answer: u32, first: u32) -> Act {
    let mut instructions = Vec::new();
    for word in 0..3 {
        let to = MemArg { offset: u64::from(4 + 4 * word), align: 2, memory_index: 0 };
        instructions.extend([Instruction::I32Const(answer as i32), Instruction::LocalGet(first + word), Instruction::I32Store(to)]);
    }
    instructions.push(Instruction::I32Const(answer as i32));
    Act::Run(instructions)
}

/// Stores the number at an address of the argument record to an address of the answer.
pub fn copy(from_argument: u32, to: u32) -> [Instruction<'static>; 4] {
    let word = |offset: u32| MemArg { offset: offset.into(), align: 2, memory_index: 0 };
    [Instruction::I32Const(to as i32), Instruction::LocalGet(0), Instruction::I32Load(word(from_argument)), Instruction::I32Store(word(0))]
}

impl Puppet {
    /// An operator with one input and one output that answers every call with `turn`.
    pub fn new(planned: Planned, turn: Turn) -> Self {
        let mut puppet = Self::silent();
        puppet.plan = puppet.answer::<Result<Planned, String>>(&Ok(planned));
        puppet.process = puppet.answer::<Result<Turn, Failure>>(&Ok(turn));
        puppet.on_timers = puppet.process.clone();
        puppet
    }

    /// An operator with one input and one output that reads nothing, keeps everything and answers with empty turns.
    pub fn silent() -> Self {
        let mut memory = Memory::default();
        let answer = |at: u32| Act::Answer(at);
        let describe = memory.put(&descriptor());
        let plan = memory.put::<Result<Planned, String>>(&Ok(planned()));
        let open = memory.put::<Result<(), String>>(&Ok(()));
        let process = memory.put::<Result<Turn, Failure>>(&Ok(Turn::default()));
        Self {
            describe: answer(describe),
            plan: answer(plan),
            open: answer(open),
            process: answer(process),
            on_timers: answer(process),
            migrate: None,
            memory,
        }
    }

    /// An answer put into the guest's memory.
    pub fn answer<V: Value>(&mut self, value: &V) -> Act {
        Act::Answer(self.memory.put(value))
    }

    /// The component.
    pub fn component(&self) -> Arc<[u8]> {
        self.component_with(|_| {})
    }

    /// The component, with changes to its core module's extras.
    pub fn component_with(&self, change: impl FnOnce(&mut Extras)) -> Arc<[u8]> {
        let mut extras = Extras::default();
        change(&mut extras);
        let mut module = self.module(&extras);
        let world = if self.migrate.is_some() { "migrating-operator" } else { "stream-operator" };
        encode(&mut module, world, &extras)
    }

    fn module(&self, extras: &Extras) -> Vec<u8> {
        let mut functions = vec![
            ("operator", "describe", 0, &self.describe),
            ("operator", "plan", 4, &self.plan),
            ("operator", "open", 4, &self.open),
            ("operator", "process", 1, &self.process),
            ("operator", "on-timers", 1, &self.on_timers),
        ];
        functions.extend(self.migrate.as_ref().map(|migrate| ("migration", "migrate", 8, migrate)));
        core_module(&functions, &self.memory, extras)
    }
}

/// Parts of a core module beyond the five functions.
#[derive(Default)]
pub struct Extras {
    /// A start function that does this.
    pub start: Option<Vec<Instruction<'static>>>,
    /// What is called in the place of an allocator; it has the parameters of `cabi_realloc`.
    pub realloc: Option<Vec<Instruction<'static>>>,
    /// What is called when an answer has been taken over, with its address as parameter.
    pub post_return: Option<Vec<Instruction<'static>>>,
    /// A function of the host that the module imports: its number is 0.
    pub import: Option<Import>,
    /// A table of functions, empty.
    pub has_table: bool,
}

/// A function of an interface.
#[derive(Clone, Copy)]
pub struct Import {
    /// The interface, as `wasi:cli/stdout@0.2.0`.
    pub interface: &'static str,
    /// The function.
    pub function: &'static str,
    /// What it takes, as core Wasm has it.
    pub parameters: &'static [ValType],
    /// What it gives.
    pub results: &'static [ValType],
    /// Its packages in WIT, dependencies first.
    pub wit: &'static [&'static str],
}

/// An aggregate whose functions do as told.
pub struct AggregatePuppet {
    pub memory: Memory,
    pub plan: Act,
    pub accumulate: Act,
    pub merge: Act,
    pub finish: Act,
}

crate::record!(AggregateDescriptor { name: String, version: String, summary: String, settings_schema: String, hints: Vec<crate::contract::Hint> });

impl AggregateDescriptor {
    fn example() -> Self {
        Self { name: "puppet".into(), version: "1".into(), summary: String::new(), settings_schema: String::new(), hints: vec![] }
    }
}

impl AggregatePuppet {
    pub fn new(signature: Signature) -> Self {
        let mut memory = Memory::default();
        let plan = Act::Answer(memory.put::<Result<Signature, String>>(&Ok(signature)));
        Self { memory, plan, accumulate: trap(), merge: trap(), finish: trap() }
    }

    pub fn answer<V: Value>(&mut self, value: &V) -> Act {
        Act::Answer(self.memory.put(value))
    }

    pub fn component(mut self) -> Arc<[u8]> {
        let describe = self.answer(&AggregateDescriptor::example());
        let open = self.answer::<Result<(), String>>(&Ok(()));
        let functions = [
            ("aggregate", "describe", 0, &describe),
            ("aggregate", "plan", 4, &self.plan),
            ("aggregate", "open", 4, &open),
            ("aggregate", "accumulate", 9, &self.accumulate),
            ("aggregate", "merge", 8, &self.merge),
            ("aggregate", "finish", 3, &self.finish),
        ];
        let mut module = core_module(&functions, &self.memory, &Extras::default());
        encode(&mut module, "window-aggregate", &Extras::default())
    }
}

/// Describes itself with one input `in` and one output `out`.
pub fn descriptor() -> Descriptor {
    Descriptor {
        name: "puppet".into(),
        version: "1.0.0".into(),
        summary: "does as it is told".into(),
        settings_schema: "{}".into(),
        inputs: vec!["in".into()],
        outputs: vec!["out".into()],
        hints: vec![],
    }
}

/// Reads nothing, keeps everything.
pub fn planned() -> Planned {
    use crate::contract::{InputPlan, OutputPlan};
    Planned {
        inputs: vec![InputPlan { reads: vec![], keyed: false, event_times: false, changes: true }],
        outputs: vec![OutputPlan { keeps: Some(0), adds: vec![], sets_event_times: false, changes: false }],
        states: vec![],
        timers: vec![],
        hints: vec![],
    }
}

/// The number of the function that calls itself, behind what is imported and the allocator.
const RECURSE: u32 = 1;

/// A core module that exports `functions` (interface, name, number of i32 parameters, act), all answering one address.
fn core_module(functions: &[(&str, &str, u32, &Act)], memory: &Memory, extras: &Extras) -> Vec<u8> {
    let exported = |interface: &str, name: &str| format!("millstream:operator/{interface}@0.1.0#{name}");
    let mut types = TypeSection::new();
    let mut imports = ImportSection::new();
    let mut declared = FunctionSection::new();
    let mut exports = ExportSection::new();
    let mut code = CodeSection::new();
    let imported = u32::from(extras.import.is_some());
    let mut function_of = |types: &mut TypeSection, parameters: &[ValType], results: &[ValType], body: &Function| {
        declared.function(types.len());
        types.ty().function(parameters.iter().copied(), results.iter().copied());
        code.function(body);
        imported + declared.len() - 1
    };

    if let Some(Import { interface, function, parameters, results, .. }) = extras.import {
        imports.import(interface, function, EntityType::Function(types.len()));
        types.ty().function(parameters.iter().copied(), results.iter().copied());
    }
    let allocator = extras.realloc.as_ref().map_or_else(realloc, |instructions| function(instructions));
    let allocator = function_of(&mut types, &[ValType::I32; 4], &[ValType::I32], &allocator);
    let recursing = function(&[Instruction::Call(imported + RECURSE), Instruction::I32Const(1), Instruction::I32Add]);
    function_of(&mut types, &[], &[ValType::I32], &recursing);
    for (interface, name, parameters, act) in functions {
        let body = match act {
            Act::Answer(at) => function(&[Instruction::I32Const(*at as i32)]),
            Act::Run(instructions) => function(instructions),
        };
        let number = function_of(&mut types, &vec![ValType::I32; *parameters as usize], &[ValType::I32], &body);
        exports.export(&exported(interface, name), ExportKind::Func, number);
    }
    exports.export("memory", ExportKind::Memory, 0);
    exports.export("cabi_realloc", ExportKind::Func, allocator);

    // After an answer was taken over, what was allocated for the call is free again.
    let free = [Instruction::I32Const(heap(memory)), Instruction::GlobalSet(0)];
    let free = function(extras.post_return.as_deref().unwrap_or(&free));
    let free = function_of(&mut types, &[ValType::I32], &[], &free);
    for (interface, name, _, _) in functions {
        exports.export(&format!("cabi_post_{}", exported(interface, name)), ExportKind::Func, free);
    }
    let start = extras.start.as_ref().map(|instructions| function_of(&mut types, &[], &[], &function(instructions)));

    let pages = (heap(memory) / 65_536) as u64 + 1;
    let mut memories = MemorySection::new();
    memories.memory(MemoryType { minimum: pages, maximum: None, memory64: false, shared: false, page_size_log2: None });
    let mut tables = TableSection::new();
    if extras.has_table {
        tables.table(TableType { element_type: RefType::FUNCREF, table64: false, minimum: 0, maximum: None, shared: false });
    }
    let mut globals = GlobalSection::new();
    // The next free address.
    globals.global(GlobalType { val_type: ValType::I32, mutable: true, shared: false }, &ConstExpr::i32_const(heap(memory)));
    let mut data = DataSection::new();
    data.active(0, &ConstExpr::i32_const(0), memory.bytes.iter().copied());

    let mut module = Module::new();
    module.section(&types).section(&imports).section(&declared).section(&tables).section(&memories).section(&globals).section(&exports);
    if let Some(function_index) = start {
        module.section(&StartSection { function_index });
    }
    module.section(&code).section(&data);
    module.finish()
}

/// Where allocations of a call begin: at the page behind the answers.
fn heap(memory: &Memory) -> i32 {
    memory.bytes.len().next_multiple_of(65_536) as i32
}

fn function(instructions: &[Instruction<'_>]) -> Function {
    let mut function = Function::new([]);
    instructions.iter().for_each(|instruction| {
        function.instruction(instruction);
    });
    function.instruction(&Instruction::End);
    function
}

/// Allocates behind everything allocated before, growing memory as needed; nothing is ever freed.
fn realloc() -> Function {
    let (align, size, at) = (2, 3, 4);
    let mut function = Function::new([(1, ValType::I32)]);
    let body = [
        // at = (next + align - 1) & -align
        Instruction::GlobalGet(0),
        Instruction::LocalGet(align),
        Instruction::I32Add,
        Instruction::I32Const(1),
        Instruction::I32Sub,
        Instruction::I32Const(0),
        Instruction::LocalGet(align),
        Instruction::I32Sub,
        Instruction::I32And,
        Instruction::LocalTee(at),
        Instruction::LocalGet(size),
        Instruction::I32Add,
        Instruction::GlobalSet(0),
        // while next > memory.size * 64 KiB: memory.grow
        Instruction::Block(BlockType::Empty),
        Instruction::Loop(BlockType::Empty),
        Instruction::GlobalGet(0),
        Instruction::MemorySize(0),
        Instruction::I32Const(16),
        Instruction::I32Shl,
        Instruction::I32LeU,
        Instruction::BrIf(1),
        Instruction::I32Const(1),
        Instruction::MemoryGrow(0),
        Instruction::I32Const(-1),
        Instruction::I32Ne,
        Instruction::BrIf(0),
        Instruction::Unreachable,
        Instruction::End,
        Instruction::End,
        Instruction::LocalGet(at),
        Instruction::End,
    ];
    body.iter().for_each(|instruction| {
        function.instruction(instruction);
    });
    function
}

/// The contract, as guests see it.
pub fn contract() -> (Resolve, wit_parser::PackageId) {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../wit")).expect("the contract parses");
    (resolve, package)
}

fn encode(module: &mut Vec<u8>, world: &str, extras: &Extras) -> Arc<[u8]> {
    let (mut resolve, package) = contract();
    let world = match &extras.import {
        None => resolve.select_world(&[package], Some(world)).expect("the world exists"),
        Some(Import { interface, wit, .. }) => {
            for package in *wit {
                resolve.push_str("import.wit", package).expect("its packages parse");
            }
            let text =
                format!("package hostile:puppet;\nworld puppet {{ include millstream:operator/{world}@0.1.0; import {interface}; }}\n");
            let package = resolve.push_str("puppet.wit", &text).expect("the world parses");
            resolve.select_world(&[package], Some("puppet")).expect("the world exists")
        }
    };
    embed_component_metadata(module, &resolve, world, StringEncoding::UTF8).expect("metadata can be embedded");
    let mut encoder = ComponentEncoder::default().validate(true).module(module).expect("the module fits its world");
    encoder.encode().expect("the module becomes a component").into()
}

/// A component that only imports `import`, an interface of one function.
pub fn importer(import: &str) -> Arc<[u8]> {
    use wasm_encoder::{Component, ComponentImportSection, ComponentTypeRef, ComponentTypeSection, InstanceType};
    let mut types = ComponentTypeSection::new();
    types.instance(&InstanceType::new());
    let mut imports = ComponentImportSection::new();
    imports.import(import, ComponentTypeRef::Instance(0));
    let mut component = Component::new();
    component.section(&types).section(&imports);
    component.finish().into()
}

/// A core module that imports a function, as toolchains of other systems do.
pub fn core_importer(module: &str, name: &str) -> Vec<u8> {
    let mut types = TypeSection::new();
    types.ty().function([], []);
    let mut imports = ImportSection::new();
    imports.import(module, name, EntityType::Function(0));
    let mut made = Module::new();
    made.section(&types).section(&imports);
    made.finish()
}
