//! Operators as users write them, run by the native harness: what the conformance cases leave open.

use millstream::{
    Change, Decimal, EventTime, EventTimer, ListState, MapState, Now, Out, Reject, Row, State,
    metrics::{Counter, Gauge},
    operator,
    testing::Harness,
};

#[derive(Row)]
struct Number {
    number: i64,
}

mod keeping {
    use super::*;

    #[derive(Row)]
    pub struct Half {
        half: f64,
    }

    #[millstream::map(keep = false)]
    pub fn halve(number: i64) -> Half {
        Half { half: number as f64 / 2.0 }
    }

    #[millstream::flat_map]
    pub fn repeat(number: i64, #[output(keep)] copies: &mut Out<Half>) {
        for _ in 0..number {
            copies.push(Half { half: number as f64 / 2.0 });
        }
    }

    #[test]
    fn a_map_that_keeps_nothing_emits_its_columns_alone() {
        let mut harness = Harness::<halve>::new();
        harness.rows([Number { number: 3 }]);
        let emitted = harness.emitted();
        assert_eq!(emitted[0].columns.keys().collect::<Vec<_>>(), ["half"]);
        assert_eq!(emitted[0].columns["half"], 1.5);
    }

    #[test]
    fn an_output_may_keep_the_columns_of_the_row_that_is_being_handled() {
        let mut harness = Harness::<repeat>::new();
        harness.rows_at([(1, Number { number: 0 }), (2, Number { number: 2 }), (3, Number { number: 1 })]);
        let emitted: Vec<_> = harness.emitted().iter().map(|row| (row.time, row.columns["number"].clone())).collect();
        assert_eq!(emitted, [(Some(2), 2.into()), (Some(2), 2.into()), (Some(3), 1.into())]);
    }
}

mod saying {
    use super::*;

    static SEEN: Counter = Counter::new("seen", "1");
    static LAST: Gauge = Gauge::new("last", "1");

    #[millstream::filter]
    pub fn odd(number: i64, now: Now) -> Result<bool, Reject> {
        SEEN.add(1.0);
        LAST.set(number as f64);
        millstream::info!("{number} at {}", now.processing_time.0);
        if number == 0 { Err("zero".into()) } else { Ok(number % 2 == 1) }
    }

    #[test]
    fn logs_metrics_and_rejections_reach_the_harness() {
        let mut harness = Harness::<odd>::new();
        harness.processing_time(7);
        harness.rows([1, 0, 2, 3].map(|number| Number { number }));
        assert_eq!(harness.logs(), ["Info: 1 at 7", "Info: 0 at 7", "Info: 2 at 7", "Info: 3 at 7"]);
        assert_eq!(harness.metric("seen"), 4.0);
        assert_eq!(harness.rejected()[0].reason, "zero");
        assert_eq!(harness.emitted().len(), 2);
    }
}

mod declaring {
    use super::*;

    /// What is declared.
    #[derive(State, Default)]
    #[state(version = 3, ttl = "90s", clock = "processing-time", refresh = "on-read")]
    pub struct Seen {
        #[state(name = "the price")]
        price: Decimal<10, 2>,
    }

    #[derive(Row)]
    pub struct Nothing {}

    #[derive(Default)]
    pub struct Declared;

    /// Declares everything once.
    ///
    /// And says more below.
    #[millstream::operator(keyed)]
    impl Declared {
        #[input(name = "left-side")]
        fn left(&self, number: i64, seen: &mut Seen, first_out: &mut Out<Nothing>) {
            let _ = (number, seen, first_out);
        }

        #[input]
        #[expect(clippy::too_many_arguments, reason = "it declares everything")]
        fn right(
            &self,
            number: Option<i64>,
            time: EventTime,
            change: Change,
            #[state(name = "by time", version = 2, ttl = "1d")] by_time: &mut MapState<i64, Vec<String>>,
            all: &mut ListState<u16>,
            wake_up: &mut EventTimer,
            seen: &mut Seen,
        ) {
            let _ = (number, time, change, by_time, all, wake_up, seen);
        }

        #[on_timer(wake_up)]
        fn woken(&self, number: i64, first_out: &mut Out<Nothing>) {
            let _ = (number, first_out);
        }
    }

    fn inputs() -> Vec<millstream::bindings::Input> {
        let field = millstream::bindings::Field { name: "number".into(), data_type: "Int64".into(), nullable: false };
        let input = millstream::bindings::Input { fields: vec![field], keys: vec![0], event_times: true, changes: false };
        vec![input.clone(), input]
    }

    #[test]
    fn describe_names_what_the_code_names() {
        let descriptor = operator::describe::<Declared>();
        assert_eq!(descriptor.name, "millstream");
        assert_eq!(descriptor.summary, "Declares everything once.");
        assert_eq!(descriptor.inputs, ["left-side", "right"]);
        assert_eq!(descriptor.outputs, ["first-out"]);
        assert_eq!(descriptor.settings_schema, "");
    }

    #[test]
    fn plan_declares_states_timers_and_reads() {
        let planned = operator::plan::<Declared>("{}", &inputs()).unwrap();
        let states: Vec<_> = planned.states.iter().map(|state| (state.name.as_str(), state.value_type.as_str(), state.version)).collect();
        let expected =
            [("seen", "Struct(\"the price\": non-null Decimal128(10, 2))", 3), ("by time", "List(non-null Utf8)", 2), ("all", "UInt16", 1)];
        assert_eq!(states, expected);
        assert_eq!(planned.states[1].map_key_type.as_deref(), Some("Int64"));
        let ttl = planned.states[0].ttl.as_ref().unwrap();
        assert_eq!((ttl.ms, planned.states[1].ttl.as_ref().unwrap().ms), (90_000, 86_400_000));
        assert_eq!(planned.timers[0].name, "wake-up");
        assert!(planned.inputs[1].reads[0].nullable && !planned.inputs[0].reads[0].nullable);
        assert_eq!((planned.inputs[0].event_times, planned.inputs[1].event_times), (false, true));
        assert_eq!((planned.inputs[0].changes, planned.inputs[1].changes), (false, true));
    }

    #[test]
    fn a_timer_handler_that_reads_no_key_column_is_refused() {
        let mut inputs = inputs();
        inputs.iter_mut().for_each(|input| input.keys.clear());
        let error = operator::plan::<Declared>("{}", &inputs).unwrap_err();
        assert_eq!(error, "the timer handler reads `number`, but the stream is keyed by []");
    }

    #[test]
    fn settings_are_refused_where_none_are_taken() {
        assert_eq!(operator::plan::<Declared>("{\"a\": 1}", &inputs()).unwrap_err(), "this operator takes no settings");
    }

    #[test]
    fn a_wrong_number_of_inputs_is_refused_with_their_names() {
        let error = operator::plan::<Declared>("{}", &inputs()[..1]).unwrap_err();
        assert_eq!(error, "this operator has 2 inputs (left-side, right), not 1");
    }
}

mod configured {
    use super::*;

    /// How much.
    #[millstream::settings]
    pub struct Settings {
        /// Times so much.
        by_how_much: i64,
    }

    pub struct Multiply {
        by: i64,
    }

    #[millstream::operator]
    impl Multiply {
        fn open(settings: Settings) -> Result<Self, String> {
            match settings.by_how_much {
                0 => Err("by-how-much: 0 loses everything".into()),
                by => Ok(Self { by }),
            }
        }

        fn process(&mut self, number: i64, out: &mut Out<Number>) {
            out.push(Number { number: number * self.by });
        }
    }

    #[test]
    fn settings_make_the_operator() {
        let mut harness = Harness::<Multiply>::with_settings(r#"{"by-how-much": 3}"#);
        harness.rows([Number { number: 2 }]);
        assert_eq!(harness.output::<Number>()[0].number, 6);
        assert!(operator::describe::<Multiply>().settings_schema.contains("Times so much."));
    }

    #[test]
    fn bad_settings_are_explained() {
        let plan = |settings: &str| operator::plan::<Multiply>(settings, &[]).unwrap_err();
        assert_eq!(plan(r#"{"by-how-much": 0}"#), "by-how-much: 0 loses everything");
        assert!(plan("{}").contains("missing field `by-how-much`"));
        assert!(plan(r#"{"by-how-mach": 1}"#).contains("unknown field `by-how-mach`"));
    }
}

mod borrowing {
    use super::*;

    #[derive(Row)]
    pub struct Pair<'a> {
        first: &'a str,
        second: Option<&'a str>,
    }

    #[millstream::flat_map]
    pub fn join(pair: Pair<'_>, out: &mut Out<Pair<'_>>) {
        let joined = format!("{}{}", pair.first, pair.second.unwrap_or("?"));
        // A row may borrow from the handler as well as from the batch.
        out.push(Pair { first: &joined, second: pair.second });
    }

    #[test]
    fn rows_may_borrow_on_both_sides() {
        let mut harness = Harness::<join>::new();
        harness.rows([Pair { first: "a", second: Some("b") }, Pair { first: "c", second: None }]);
        let rows: Vec<Pair<'_>> = harness.output();
        assert_eq!((rows[0].first, rows[0].second), ("ab", Some("b")));
        assert_eq!((rows[1].first, rows[1].second), ("c?", None));
    }
}
