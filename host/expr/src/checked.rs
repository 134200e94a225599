//! Checked arithmetic: DataFusion wraps on integer overflow by default; here it fails, so that a wrong number never flows on.

use std::sync::Arc;

use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_schema::{DataType, Schema};
use datafusion_common::{
    DataFusionError, Result, ScalarValue,
    tree_node::{Transformed, TreeNode, TreeNodeRecursion},
};
use datafusion_expr::Operator;
use datafusion_physical_expr::{
    PhysicalExpr,
    expressions::{BinaryExpr, CaseExpr, Literal, NegativeExpr, lit},
    utils::collect_columns,
};

/// The same expression with arithmetic that fails instead of wrapping around.
pub(crate) fn checked(expression: Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
    let checked = expression.transform_up(|node| {
        if let Some(binary) = node.downcast_ref::<BinaryExpr>() {
            return Ok(checked_binary(binary).map_or_else(|| Transformed::no(node.clone()), Transformed::yes));
        }
        if let Some(negative) = node.downcast_ref::<NegativeExpr>() {
            return Ok(checked_negative(negative, schema)?.map_or_else(|| Transformed::no(node.clone()), Transformed::yes));
        }
        Ok(Transformed::no(node))
    })?;
    Ok(checked.data)
}

fn checked_binary(binary: &BinaryExpr) -> Option<Arc<dyn PhysicalExpr>> {
    let wraps = matches!(binary.op(), Operator::Plus | Operator::Minus | Operator::Multiply);
    wraps.then(|| {
        let unchecked = BinaryExpr::new(binary.left().clone(), *binary.op(), binary.right().clone());
        Arc::new(unchecked.with_fail_on_overflow(true)) as Arc<dyn PhysicalExpr>
    })
}

/// −x as 0 − x, for signed integers: the smallest one has no opposite.
fn checked_negative(negative: &NegativeExpr, schema: &Schema) -> Result<Option<Arc<dyn PhysicalExpr>>> {
    let data_type = negative.arg().data_type(schema)?;
    if !matches!(data_type, DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64) {
        return Ok(None);
    }
    let zero = lit(ScalarValue::new_zero(&data_type)?);
    let difference = BinaryExpr::new(zero, Operator::Minus, negative.arg().clone()).with_fail_on_overflow(true);
    Ok(Some(Arc::new(difference)))
}

/// Fails if a part of the expression that reads no column fails: it would fail on every row. Branches of `CASE` are left alone, since
/// they may be guarded.
///
/// # Errors
/// What the part fails with.
pub(crate) fn check_constants(expression: &Arc<dyn PhysicalExpr>) -> Result<()> {
    let one_row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &RecordBatchOptions::new().with_row_count(Some(1)))
        .map_err(|error| DataFusionError::ArrowError(Box::new(error), None))?;
    expression.apply(|node| {
        if node.downcast_ref::<CaseExpr>().is_some() || node.downcast_ref::<Literal>().is_some() {
            return Ok(TreeNodeRecursion::Jump);
        }
        if !collect_columns(node).is_empty() {
            return Ok(TreeNodeRecursion::Continue);
        }
        match node.evaluate(&one_row) {
            // Some functions exist only to be simplified away, and fail here for no fault of the user's.
            Err(error) if matches!(error.find_root(), DataFusionError::ArrowError(..)) => Err(error),
            Err(_) => Ok(TreeNodeRecursion::Continue),
            Ok(_) => Ok(TreeNodeRecursion::Jump),
        }
    })?;
    Ok(())
}
