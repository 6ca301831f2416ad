{#-
  A model's schema is the one it names, without the target's in front: tables read as <stage>.<table>. The var
  features_schema lets a second set of feature tables stand beside the first.
-#}
{%- macro generate_schema_name(custom_schema_name, node) -%}
  {{ var('features_schema') if custom_schema_name == 'features' else custom_schema_name or target.schema }}
{%- endmacro -%}
