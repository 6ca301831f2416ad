{#-
  Every window frame of the project. A window of w ms before t is [t - w, t): it ends strictly before the
  row, so that rows of one millisecond do not see each other. Without w it reaches back to the beginning.
-#}
{%- macro frame(entity, window_ms=none) -%}
  over (
    partition by {{ var('entities')[entity] | join(', ') }}
    order by moment
    range between {{ window_ms ~ ' preceding' if window_ms else 'unbounded preceding' }} and 1 preceding
  )
{%- endmacro -%}
