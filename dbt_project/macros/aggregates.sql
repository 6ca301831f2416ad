{#-
  One macro a kind of aggregate, named aggregate_<kind>. It returns what it needs of the entity's timeline (see
  entity_features) and `value`, a DOUBLE made of that:
    totals: name -> an integer of a row, summed over the window, read by inside(); count_<name>: 1 or NULL;
    facts: name -> [min or max, of a row's expression] over the key's whole past, or [.., .., w] over a window of w ms;
    distinct: the column whose different values in the window present() counts;
    last: amounts or outcomes, the list of the window's last few moments (see lookback.sql) that it reads.
  Its twin is the class of the same kind in fraud_platform/features/aggregates.py. On rows of the other stream
  `amount_minor`, `event_time` and every other column of transactions are NULL, and `reported` is 1 on rows of
  fraud_reports only.
-#}

{%- macro aggregate(feature) -%}
  {{- return(dict({'totals': {}, 'facts': {}, 'distinct': none, 'last': none}, **context['aggregate_' ~ feature['kind']](feature))) -}}
{%- endmacro -%}

{%- macro aggregate_count(feature) -%}
  {%- set count = counted(feature) -%}
  {{- return({'totals': count, 'value': 'cast(' ~ inside(count | first, feature) ~ ' as double)'}) -}}
{%- endmacro -%}

{%- macro aggregate_sum(feature) -%}
  {%- set sum = 'sum_' ~ feature['of'] -%}
  {{- return({'totals': {sum: feature['of']}, 'value': 'cast(' ~ inside(sum, feature) ~ ' as double)'}) -}}
{%- endmacro -%}

{%- macro aggregate_mean(feature) -%}
  {%- set sum, count = 'sum_' ~ feature['of'], counted(feature) -%}
  {{- return({
    'totals': dict({sum: feature['of']}, **count),
    'value': 'cast(' ~ inside(sum, feature) ~ ' as double) / nullif(cast(' ~ inside(count | first, feature) ~ ' as double), 0e0)',
  }) -}}
{%- endmacro -%}

{#- n * sum of squares - square of the sum: an exact integer until the last step. -#}
{%- macro aggregate_std(feature) -%}
  {%- set of = feature['of'] -%}
  {%- set count, sum, squares = counted(feature), 'sum_' ~ of, 'squares_' ~ of -%}
  {%- set n, total = inside(count | first, feature), as_integer128(inside(sum, feature)) -%}
  {{- return({
    'totals': dict({sum: of, squares: as_integer128(of) ~ ' * ' ~ of}, **count),
    'value': 'case when ' ~ n ~ ' > 1 then sqrt('
      ~ exact_double(n ~ ' * ' ~ inside(squares, feature) ~ ' - ' ~ total ~ ' * ' ~ total)
      ~ ') / cast(' ~ n ~ ' as double) end',
  }) -}}
{%- endmacro -%}

{%- macro aggregate_distinct(feature) -%}
  {{- return({'distinct': feature['of'], 'value': 'cast(' ~ present(feature['of'], feature) ~ ' as double)'}) -}}
{%- endmacro -%}

{%- macro aggregate_seconds_since_last(feature) -%}
  {{- return({
    'facts': {'last_seen': ['max', 'event_time']},
    'value': 'cast(event_time - last_seen as double) / 1000e0',
  }) -}}
{%- endmacro -%}

{%- macro aggregate_age_seconds(feature) -%}
  {{- return({
    'facts': {'first_seen': ['min', 'event_time']},
    'value': 'cast(event_time - first_seen as double) / 1000e0',
  }) -}}
{%- endmacro -%}

{%- macro aggregate_is_new(feature) -%}
  {{- return({
    'facts': {'first_seen': ['min', 'event_time']},
    'value': 'case when first_seen is null then 1e0 else 0e0 end',
  }) -}}
{%- endmacro -%}

{#- Of the last moment with a known place; where that moment has several, the greatest by latitude, then longitude. -#}
{%- macro aggregate_distance_km(feature) -%}
  {{- return({
    'facts': {'last_place': ['max', 'place']},
    'value': distance_km('last_place.', 'place.'),
  }) -}}
{%- endmacro -%}

{%- macro aggregate_speed_kmh(feature) -%}
  {%- set distance = aggregate_distance_km(feature) -%}
  {{- return(dict(
    distance,
    value=distance['value'] ~ ' / (cast(event_time - last_place.event_time as double) / 3600000e0)',
  )) -}}
{%- endmacro -%}

{%- macro aggregate_seconds_since_report(feature) -%}
  {{- return({
    'facts': {'last_report': ['max', 'case when reported = 1 then moment end']},
    'value': 'case when last_report >= ' ~ window_start('event_time', feature['window_ms'])
      ~ ' then cast(event_time - last_report as double) / 1000e0 end',
  }) -}}
{%- endmacro -%}

{#- The count has the window's beginning kept apart in a condensed past (built_through). -#}
{%- macro aggregate_seconds_since_first_report(feature) -%}
  {%- set oldest = 'oldest_report_' ~ feature['window_ms'] -%}
  {{- return({
    'totals': counted(feature),
    'facts': {oldest: ['min', 'case when reported = 1 then moment end', feature['window_ms']]},
    'value': 'cast(event_time - ' ~ oldest ~ ' as double) / 1000e0',
  }) -}}
{%- endmacro -%}

{%- macro aggregate_last_max(feature) -%}
  {{- return({'last': 'amounts', 'value': 'cast(list_max(last_amounts) as double)'}) -}}
{%- endmacro -%}

{%- macro aggregate_last_median(feature) -%}
  {{- return({
    'last': 'amounts',
    'value': '(cast(list_sort(last_amounts)[(len(last_amounts) + 1) // 2] as double)'
      ~ ' + cast(list_sort(last_amounts)[len(last_amounts) // 2 + 1] as double)) / 2e0',
  }) -}}
{%- endmacro -%}

{%- macro aggregate_last_fraud_share(feature) -%}
  {{- return({
    'last': 'outcomes',
    'value': 'cast(len(' ~ known_frauds() ~ ') as double) / nullif(cast(len(last_outcomes) as double), 0e0)',
  }) -}}
{%- endmacro -%}

{%- macro aggregate_last_fraud_mean(feature) -%}
  {{- return({
    'last': 'outcomes',
    'value': 'cast(list_sum(' ~ known_frauds() ~ ') as double) / nullif(cast(len(' ~ known_frauds() ~ ') as double), 0e0)',
  }) -}}
{%- endmacro -%}

{%- macro aggregate_seconds_since_good(feature) -%}
  {{- return({
    'last': 'outcomes',
    'value': 'cast(event_time - ' ~ last_good() ~ ' as double) / 1000e0',
  }) -}}
{%- endmacro -%}

{%- macro aggregate_seconds_since_fraud_only(feature) -%}
  {{- return({
    'last': 'outcomes',
    'value': 'cast(event_time - list_min([one.moment for one in last_outcomes if one.moment > coalesce('
      ~ last_good() ~ ', -1)]) as double) / 1000e0',
  }) -}}
{%- endmacro -%}

{%- macro last_good() -%}
  list_max([good.moment for good in last_outcomes if good.known_at is null or good.known_at >= event_time])
{%- endmacro -%}

{%- macro known_frauds() -%}
  [one.amount for one in last_outcomes if one.known_at < event_time]
{%- endmacro -%}

{#- The total of a stream's rows, which is that of their amounts as well: no transaction is without one. -#}
{%- macro counted(feature) -%}
  {%- set column = 'reported' if feature.get('stream') == 'fraud_reports' else 'event_time' -%}
  {{- return({'count_' ~ column: one_of(column)}) -}}
{%- endmacro -%}

{%- macro one_of(column) -%}
  case when {{ column }} is not null then 1 end
{%- endmacro -%}

{#- Integers of 128 bits, and their nearest double by two correctly rounded steps, the same in every engine. -#}
{%- macro as_integer128(expression) -%}
  cast({{ expression }} as hugeint)
{%- endmacro -%}

{%- macro exact_double(expression) -%}
  (cast(({{ expression }}) // 9007199254740992 as double) * 9007199254740992e0
    + cast(({{ expression }}) % 9007199254740992 as double))
{%- endmacro -%}
