{#- Reads the one declaration (vars in dbt_project.yml): one entry a feature, windows spelt out. -#}

{%- macro declared_features() -%}
  {%- set declared = [] -%}
  {%- for entry in var('features') -%}
    {%- for window in entry.get('windows', [none]) -%}
      {%- do declared.append(dict(
          entry,
          name=entry['name'] ~ ('_' ~ window if window else ''),
          window_ms=var('windows')[window] if window else none,
          offset_ms=var('windows')[entry['offset']] if entry.get('offset') else 0,
      )) -%}
    {%- endfor -%}
  {%- endfor -%}
  {%- for extra in var('extras') -%}
    {%- do declared.append(dict(
        name=extra['name'], kind='category' if extra['dtype'] == 'category' else 'field', of=extra['name']
    )) -%}
  {%- endfor -%}
  {{- return(declared) -}}
{%- endmacro -%}

{%- macro features_of_entity(entity) -%}
  {{- return(declared_features() | selectattr('entity', 'defined') | selectattr('entity', 'equalto', entity) | list) -}}
{%- endmacro -%}

{#- The keys and every column that an entity's features read, each once. -#}
{%- macro columns_read(keys, features) -%}
  {%- set columns = keys | list -%}
  {%- for feature in features if feature.get('of') and feature['of'] not in columns -%}
    {%- do columns.append(feature['of']) -%}
  {%- endfor -%}
  {{- return(columns) -}}
{%- endmacro -%}
