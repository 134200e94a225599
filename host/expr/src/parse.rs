//! From text to a physical expression. Runs on a thread with a stack of its own, because the libraries below recurse and the text may come
//! from anyone.

use std::{ops::ControlFlow, sync::Arc};

use arrow_schema::{DataType, Field, FieldRef, SchemaRef};
use datafusion_common::{DFSchema, DFSchemaRef, DataFusionError, tree_node::TreeNode, tree_node::TreeNodeRecursion};
use datafusion_expr::{
    Expr, execution_props::ExecutionProps, physical_planning_context::PhysicalPlanningContext, simplify::SimplifyContext,
};
use datafusion_optimizer::simplify_expressions::ExprSimplifier;
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr, expressions::cast};
use datafusion_sql::{
    parser::DFParser,
    planner::{ParserOptions, PlannerContext, SqlToRel},
    sqlparser::ast,
};

use crate::{
    DEPTH_MAX, ExprError, TEXT_BYTES_MAX,
    checked::{check_constants, checked},
    error::EvaluationError,
    functions::Functions,
};

const STACK_BYTES: usize = 64 << 20;

type Parsed = (Arc<dyn PhysicalExpr>, DataType, bool);

/// The checked physical expression with its type and nullability.
pub(crate) fn parse(text: &str, schema: &SchemaRef) -> Result<Parsed, ExprError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(ExprError::new(format!("an expression has at most {TEXT_BYTES_MAX} bytes, this one has {}", text.len())));
    }
    std::thread::scope(|scope| {
        let parser =
            std::thread::Builder::new().name("expression".into()).stack_size(STACK_BYTES).spawn_scoped(scope, || parse_here(text, schema));
        match parser.map(std::thread::ScopedJoinHandle::join) {
            Ok(Ok(parsed)) => parsed,
            Ok(Err(_panic)) => Err(ExprError::new("the expression cannot be planned")),
            Err(error) => Err(ExprError::new(format!("no thread to parse the expression: {error}"))),
        }
    })
}

fn parse_here(text: &str, schema: &SchemaRef) -> Result<Parsed, ExprError> {
    let in_our_words = |error: DataFusionError| ExprError::from_datafusion(&error, text);
    let schema: DFSchemaRef = Arc::new(DFSchema::try_from(schema.as_ref().clone()).map_err(in_our_words)?);
    let logical = logical(text, &schema)?;
    check_depth(&logical)?;
    let unfolded = physical(&logical, &schema).map_err(in_our_words)?;
    check_constants(&unfolded).map_err(|error| ExprError::new(format!("always fails: {}", EvaluationError::from_datafusion(error))))?;
    let folded = simplify(logical, &schema).and_then(|logical| physical(&logical, &schema)).map_err(in_our_words)?;
    crossing(folded, &schema)
}

/// Parses, resolves names and coerces types.
fn logical(text: &str, schema: &DFSchemaRef) -> Result<Expr, ExprError> {
    let in_our_words = |error: DataFusionError| ExprError::from_datafusion(&error, text);
    let mut parsed = DFParser::parse_sql_into_expr(text).map_err(in_our_words)?;
    let _: ControlFlow<()> = ast::visit_expressions_mut(&mut parsed.expr, |part| {
        plain_substring(part);
        ControlFlow::Continue(())
    });
    if let Some(alias) = parsed.alias {
        return Err(ExprError::new(format!("unexpected `{alias}` after the expression")).at(text.rfind(&alias.value)));
    }
    let functions = Functions::new();
    let options = ParserOptions { enable_ident_normalization: false, map_string_types_to_utf8view: false, ..ParserOptions::default() };
    let planned = SqlToRel::new_with_options(&functions, options).sql_to_expr(parsed.expr, schema, &mut PlannerContext::new());
    let planned = planned.map_err(|error| match functions.take_refused() {
        Some(name) => ExprError::new(format!("`{name}` gives another answer at every call, so the job could not be repeated"))
            .help("use a column of the row")
            .at(text.to_lowercase().find(&name)),
        None => in_our_words(error),
    })?;
    simplifier(schema).coerce(planned, schema).map_err(in_our_words)
}

/// `SUBSTRING(x FROM 1 FOR 2)` and `substr(x, 1, 2)`, for which the grammar has a form of its own, as a plain call of a function.
fn plain_substring(part: &mut ast::Expr) {
    let ast::Expr::Substring { expr, substring_from, substring_for, .. } = part else { return };
    let first = || Box::new(ast::Expr::Value(ast::Value::Number("1".into(), false).into()));
    let from = substring_from.take().unwrap_or_else(first);
    let arguments = [Some(expr.clone()), Some(from), substring_for.take()];
    let arguments = arguments.into_iter().flatten().map(|argument| ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(*argument)));
    *part = ast::Expr::Function(ast::Function {
        name: ast::ObjectName::from(vec![ast::Ident::new("substr")]),
        uses_odbc_syntax: false,
        parameters: ast::FunctionArguments::None,
        args: ast::FunctionArguments::List(ast::FunctionArgumentList {
            duplicate_treatment: None,
            args: arguments.collect(),
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    });
}

fn simplify(logical: Expr, schema: &DFSchemaRef) -> Result<Expr, DataFusionError> {
    let simplifier = simplifier(schema);
    let simplified = simplifier.simplify(logical)?;
    simplifier.coerce(simplified, schema)
}

fn simplifier(schema: &DFSchemaRef) -> ExprSimplifier {
    ExprSimplifier::new(SimplifyContext::builder().with_schema(schema.clone()).build())
}

fn physical(logical: &Expr, schema: &DFSchemaRef) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
    let physical = create_physical_expr(logical, schema, &ExecutionProps::new(), &PhysicalPlanningContext::default())?;
    checked(physical, schema.as_arrow())
}

fn check_depth(logical: &Expr) -> Result<(), ExprError> {
    fn depth(expression: &Expr) -> usize {
        let mut deepest = 0;
        let children = expression.apply_children(|child| {
            deepest = deepest.max(depth(child));
            Ok(TreeNodeRecursion::Continue)
        });
        children.map_or(usize::MAX, |_| deepest + 1)
    }
    if depth(logical) <= DEPTH_MAX {
        return Ok(());
    }
    Err(ExprError::new(format!("nested deeper than {DEPTH_MAX}")).help("split it over several operators, or use IN for many alternatives"))
}

/// The same values in a type that crosses to guests.
fn crossing(physical: Arc<dyn PhysicalExpr>, schema: &DFSchema) -> Result<Parsed, ExprError> {
    let in_our_words = |error: DataFusionError| ExprError::from_datafusion(&error, "");
    let schema = schema.as_arrow();
    let nullable = physical.nullable(schema).map_err(in_our_words)?;
    let data_type = physical.data_type(schema).map_err(in_our_words)?;
    if data_type == DataType::Null {
        return Err(ExprError::new("NULL has no type").help("write for example CAST(NULL AS BIGINT)"));
    }
    let plain = plain_type(&data_type);
    millstream_model::types::check_crossing_type(&plain).map_err(|error| ExprError::new(error.to_string()))?;
    let physical = if plain == data_type { physical } else { cast(physical, schema, plain.clone()).map_err(in_our_words)? };
    Ok((physical, plain, nullable))
}

/// The type without views and dictionaries.
fn plain_type(data_type: &DataType) -> DataType {
    let plain = |field: &FieldRef| -> FieldRef { Arc::new(Field::new(field.name(), plain_type(field.data_type()), field.is_nullable())) };
    match data_type {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, values) => plain_type(values),
        DataType::List(item) | DataType::ListView(item) => DataType::List(plain(item)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(plain).collect()),
        other => other.clone(),
    }
}
