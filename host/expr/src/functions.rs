//! The functions an expression may call: DataFusion's scalar functions, but for those whose answer depends on more than their arguments.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use arrow_schema::DataType;
use datafusion_common::{DFSchema, DataFusionError, TableReference, config::ConfigOptions, plan_err};
use datafusion_expr::{
    AggregateUDF, GetFieldAccess, HigherOrderUDF, ScalarUDF, TableSource, Volatility, WindowUDF, lit,
    planner::{ContextProvider, ExprPlanner, PlannerResult, RawFieldAccessExpr},
};
use datafusion_functions::{
    core::planner::CoreFunctionPlanner, datetime::planner::DatetimeFunctionPlanner, unicode::planner::UnicodeFunctionPlanner,
};

/// Functions that know about DataFusion itself, or about metadata that streams do not have.
const REFUSED: [&str; 8] =
    ["arrow_field", "arrow_metadata", "cast_to_type", "file_row_index", "input_file_name", "try_cast_to_type", "version", "with_metadata"];

static FUNCTIONS: LazyLock<BTreeMap<String, Arc<ScalarUDF>>> = LazyLock::new(|| {
    let functions = datafusion_functions::all_default_functions();
    let known = functions.into_iter().filter(|function| !REFUSED.contains(&function.name()));
    known.flat_map(|function| names(&function).into_iter().map(move |name| (name, function.clone()))).collect()
});

/// All names by which a function may be called.
fn names(function: &ScalarUDF) -> Vec<String> {
    std::iter::once(function.name()).chain(function.aliases().iter().map(String::as_str)).map(str::to_lowercase).collect()
}

/// Resolves the names in one expression.
pub(crate) struct Functions {
    options: ConfigOptions,
    planners: Vec<Arc<dyn ExprPlanner>>,
    /// The function that was asked for and refused because its answer changes from call to call.
    refused: RefCell<Option<String>>,
}

impl Functions {
    pub(crate) fn new() -> Self {
        let planners: Vec<Arc<dyn ExprPlanner>> = vec![
            Arc::new(StructFields),
            Arc::new(CoreFunctionPlanner::default()),
            Arc::new(DatetimeFunctionPlanner),
            Arc::new(UnicodeFunctionPlanner),
        ];
        Self { options: ConfigOptions::default(), planners, refused: RefCell::new(None) }
    }

    /// The function that made planning fail because it is not deterministic.
    pub(crate) fn take_refused(&self) -> Option<String> {
        self.refused.take()
    }
}

/// `bid['price']`: a field of a struct.
#[derive(Debug)]
struct StructFields;

impl ExprPlanner for StructFields {
    fn plan_field_access(
        &self,
        access: RawFieldAccessExpr,
        _schema: &DFSchema,
    ) -> Result<PlannerResult<RawFieldAccessExpr>, DataFusionError> {
        let GetFieldAccess::NamedStructField { name } = access.field_access else {
            return plan_err!("only fields of structs are accessed by [ ]");
        };
        Ok(PlannerResult::Planned(datafusion_functions::core::get_field().call(vec![access.expr, lit(name)])))
    }
}

impl ContextProvider for Functions {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>, DataFusionError> {
        plan_err!("an expression reads the columns of its row, not a table such as `{name}`")
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        let function = FUNCTIONS.get(&name.to_lowercase())?;
        if function.signature().volatility == Volatility::Immutable {
            return Some(function.clone());
        }
        self.refused.replace(Some(name.to_lowercase()));
        None
    }

    fn get_higher_order_meta(&self, _name: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, _name: &str) -> Option<Arc<AggregateUDF>> {
        None
    }

    fn get_window_meta(&self, _name: &str) -> Option<Arc<WindowUDF>> {
        None
    }

    fn get_variable_type(&self, _variable_names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.options
    }

    fn udf_names(&self) -> Vec<String> {
        let immutable = FUNCTIONS.iter().filter(|(_, function)| function.signature().volatility == Volatility::Immutable);
        immutable.map(|(name, _)| name.clone()).collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udwf_names(&self) -> Vec<String> {
        Vec::new()
    }
}
