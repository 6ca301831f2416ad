{#-
  Rows before the moment built_through (ms UTC) stand in the tables as a full build would leave them; only what comes
  later is built. What is needed of the past is condensed first, so that an added day costs what a day costs: the
  windows of the new rows begin in one stretch of time for each length, as long as the new rows are. Within these
  stretches rows are kept by their moments; what lies between two stretches is inside of a window as a whole or
  outside, so that a key's totals there are one row. Of a value's past only its last occurrence decides; the values
  that do not come again in the new rows are counted by that (gone).
-#}

{#- The moment, or none where the whole table is built. -#}
{%- macro built_through() -%}
  {{- return(var('built_through') if var('built_through') is not none and is_incremental() else none) -}}
{%- endmacro -%}

{%- macro is_new_row(column) -%}
  {{ column ~ ' >= ' ~ built_through() if built_through() is not none else 'true' }}
{%- endmacro -%}

{#- CTEs that turn `timeline` into `condensed`: of the past of the new rows' keys, what their windows can tell apart. -#}
{%- macro condensed(keys, plan) -%}
{%- set values = plan['distinct'] | reject('in', keys) | list -%}
{%- set summed, reduced = plan['totals'] | list, plan['facts'] | list -%}
new_rows as (

  select * from timeline where {{ is_new_row('moment') }}

),

last_row as (

  select max(event_time) as last_moment from new_rows

),

past as (

  select
    moment,
    {{ (keys + values + summed + reduced) | join(', ') }},
    {{ stretch('moment', plan) }} as stretch
  from timeline cross join last_row
  where moment < {{ built_through() }}
    and ({{ keys | join(', ') }}) in (select ({{ keys | join(', ') }}) from new_rows where transaction_id is not null)

),
{% for of in plan['distinct'] %}
last_{{ of }} as (

  select
    {{ keys | join(', ') }},
    {{ of }},
    {{ stretch('max(moment)', plan) }} as stretch,
    ({{ (keys + [of]) | join(', ') }}) in (
      select ({{ (keys + [of]) | join(', ') }}) from new_rows where {{ of }} is not null
    ) as comes_again
  from past cross join last_row
  where {{ of }} is not null
  group by {{ (keys + [of]) | join(', ') }}, last_moment

),
{% endfor %}
condensed as (

  select
    transaction_id, event_time, moment, place, {{ (keys + values + summed + reduced) | join(', ') }}
    {%- for of in plan['distinct'] %}, 0 as gone_{{ of }}{% endfor %}
  from new_rows

  union all

  select null, null, stretch, null, {{ keys | join(', ') }}
    {%- for _ in values %}, null{% endfor %}
    {%- for name in summed %}, sum({{ name }}){% endfor %}
    {%- for name in reduced %}, {{ plan['facts'][name][0] }}({{ name }}){% endfor %}
    {%- for _ in plan['distinct'] %}, 0{% endfor %}
  from past
  group by stretch, {{ keys | join(', ') }}
  {%- for of in plan['distinct'] %}

  union all

  select null, null, stretch, null, {{ keys | join(', ') }}
    {%- for value in values %}, {{ value if value == of else 'null' }}{% endfor %}
    {%- for _ in summed + reduced %}, null{% endfor %}
    {%- for _ in plan['distinct'] %}, 0{% endfor %}
  from last_{{ of }}
  where comes_again

  union all

  select null, null, stretch, null, {{ keys | join(', ') }}
    {%- for _ in values + summed + reduced %}, null{% endfor %}
    {%- for other in plan['distinct'] %}, {{ 'count(*)' if other == of else '0' }}{% endfor %}
  from last_{{ of }}
  where not comes_again
  group by stretch, {{ keys | join(', ') }}
  {%- endfor %}

),
{%- endmacro -%}

{#-
  The moment that stands for a row's: its own within a stretch, else the end of the stretch before it, or a moment
  before all of them. It is on the same side of every window's beginning as the row's own.
-#}
{%- macro stretch(moment, plan) -%}
  {%- set windows = plan['looked_up'] | sort -%}
  {%- set begin, end = {}, {} -%}
  {%- for window_ms in windows -%}
    {%- do begin.update({window_ms: window_start(built_through(), window_ms)}) -%}
    {%- do end.update({window_ms: window_start('last_moment', window_ms)}) -%}
  {%- endfor -%}
  case
    {%- for window_ms in windows %}
    when {{ moment }} >= {{ begin[window_ms] }} and {{ moment }} < {{ end[window_ms] }} then {{ moment }}
    {%- endfor %}
    {%- for window_ms in windows %}
    when {{ moment }} >= {{ end[window_ms] }} then {{ end[window_ms] }}
    {%- endfor %}
    when true then {{ begin[windows | last] if windows else built_through() }} - 1
  end
{%- endmacro -%}

{#- One transaction: what was built of these moments before goes as the new rows come. -#}
{%- macro get_incremental_built_through_sql(arguments) -%}
  {%- set columns = arguments['dest_columns'] | map(attribute='quoted') | join(', ') -%}
  delete from {{ arguments['target_relation'] }} where event_time >= {{ var('built_through') }};
  insert into {{ arguments['target_relation'] }} ({{ columns }}) select {{ columns }} from {{ arguments['temp_relation'] }};
{%- endmacro -%}
