// SPDX-License-Identifier: Apache-2.0

package control

import (
	"encoding"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"
)

// schemas makes JSON schemas of the Go types that are answers.
type schemas map[string]any

const marker = "x-go-type" // of a schema that is made here

var (
	timeType = reflect.TypeFor[time.Time]()
	textType = reflect.TypeFor[encoding.TextMarshaler]()
	rawType  = reflect.TypeFor[json.RawMessage]()
)

// name is that of a type's schema.
func (ss schemas) name(t reflect.Type) string {
	for prefix, name := range map[string]string{
		"control.eventList": "EventList", "control.findingList": "FindingList", "control.Override": "Override", "control.done": "WriteResult",
		"control.list[github.com/memguard/memguard-go/sidecar/watch.Status]":     "RuntimeList",
		"control.list[github.com/memguard/memguard-go/sidecar/control.Override]": "OverrideList",
		"control.list[github.com/memguard/memguard-go/sidecar/incident.Summary]": "IncidentList",
	} {
		if t.String() == prefix {
			return name
		}
	}
	return t.String()
}

// of is the schema of a type, by reference where it has a name.
func (ss schemas) of(t reflect.Type) map[string]any {
	switch {
	case t == timeType:
		return map[string]any{"type": "string", "format": "date-time"}
	case t == rawType || t.Kind() == reflect.Interface:
		return map[string]any{}
	case strings.HasPrefix(t.String(), "memguard.Value["):
		return orNull(ss.of(t.Field(0).Type))
	case t.Implements(textType):
		return map[string]any{"type": "string"}
	}
	switch t.Kind() {
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.String:
		return map[string]any{"type": "string"}
	case reflect.Float32, reflect.Float64:
		return map[string]any{"type": "number"}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return map[string]any{"type": "integer"}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return map[string]any{"type": "integer", "minimum": 0.0}
	case reflect.Pointer:
		return orNull(ss.of(t.Elem()))
	case reflect.Slice:
		return map[string]any{"type": []any{"array", "null"}, "items": ss.of(t.Elem())}
	case reflect.Array:
		return map[string]any{"type": "array", "items": ss.of(t.Elem())}
	case reflect.Map:
		return map[string]any{"type": []any{"object", "null"}, "additionalProperties": ss.of(t.Elem())}
	case reflect.Struct:
		return ss.object(t)
	}
	panic("no schema for " + t.String())
}

func (ss schemas) object(t reflect.Type) map[string]any {
	name := ss.name(t)
	ref := map[string]any{"$ref": "#/components/schemas/" + name}
	if t.Name() != "" {
		if _, ok := ss[name]; ok {
			return ref
		}
		ss[name] = nil // it may have itself in it
	}
	properties, required := map[string]any{}, []any{}
	ss.fields(t, properties, &required)
	s := map[string]any{"type": "object", "properties": properties}
	if len(required) > 0 {
		s["required"] = required
	}
	if t.Name() == "" {
		return s
	}
	s[marker] = t.String()
	ss[name] = s
	return ref
}

func (ss schemas) fields(t reflect.Type, properties map[string]any, required *[]any) {
	for f := range t.Fields() {
		key, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case key == "-" || !f.IsExported():
			continue
		case f.Anonymous && key == "":
			ss.fields(f.Type, properties, required)
			continue
		case key == "":
			key = f.Name
		}
		properties[key] = ss.of(f.Type)
		if !strings.Contains(options, "omit") {
			*required = append(*required, key)
		}
	}
}

func orNull(s map[string]any) map[string]any {
	if t, ok := s["type"].(string); ok && len(s) == 1 {
		return map[string]any{"type": []any{t, "null"}}
	}
	return map[string]any{"anyOf": []any{s, map[string]any{"type": "null"}}}
}

// validator holds JSON against the schemas of a document, as far as it uses them.
type validator struct{ schemas map[string]any }

// check says where v is not as the schema says.
func (d validator) check(at string, schema map[string]any, v any) (wrong []string) {
	bad := func(format string, args ...any) { wrong = append(wrong, at+": "+fmt.Sprintf(format, args...)) }
	for key, want := range schema {
		switch key {
		case "$ref":
			s, ok := d.schemas[strings.TrimPrefix(want.(string), "#/components/schemas/")].(map[string]any)
			if !ok {
				bad("%s is not there", want)
				continue
			}
			wrong = append(wrong, d.check(at, s, v)...)
		case "type":
			types, ok := want.([]any)
			if !ok {
				types = []any{want}
			}
			if is := typeOf(v); !slices.Contains(types, any(is)) && (is != "integer" || !slices.Contains(types, any("number"))) {
				bad("it is %s, want %v", is, types)
			}
		case "anyOf":
			var all []string
			fits := false
			for _, s := range want.([]any) {
				w := d.check(at, s.(map[string]any), v)
				fits = fits || w == nil
				all = append(all, w...)
			}
			if !fits {
				wrong = append(wrong, all...)
			}
		case "properties":
			o, _ := v.(map[string]any)
			for name, s := range want.(map[string]any) {
				if value, ok := o[name]; ok {
					wrong = append(wrong, d.check(at+"."+name, s.(map[string]any), value)...)
				}
			}
		case "required":
			o, ok := v.(map[string]any)
			for _, name := range want.([]any) {
				if _, has := o[name.(string)]; ok && !has {
					bad("%s is not there", name)
				}
			}
		case "additionalProperties":
			known, _ := schema["properties"].(map[string]any)
			o, _ := v.(map[string]any)
			for name, value := range o {
				if _, ok := known[name]; ok {
					continue
				}
				if s, ok := want.(map[string]any); ok {
					wrong = append(wrong, d.check(at+"."+name, s, value)...)
				} else {
					bad("%s is not to be there", name)
				}
			}
		case "items":
			list, _ := v.([]any)
			for i, value := range list {
				wrong = append(wrong, d.check(fmt.Sprintf("%s[%d]", at, i), want.(map[string]any), value)...)
			}
		case "enum":
			if !slices.Contains(want.([]any), v) {
				bad("%v is none of %v", v, want)
			}
		case "minimum":
			if n, ok := v.(float64); ok && n < want.(float64) {
				bad("%v is below %v", v, want)
			}
		case "minLength", "maxLength":
			s, _ := v.(string)
			if n := float64(len(s)); key == "minLength" && n < want.(float64) || key == "maxLength" && n > want.(float64) {
				bad("%s %v: it has %v", key, want, n)
			}
		case "format":
			if s, ok := v.(string); ok && want == "date-time" {
				if _, err := time.Parse(time.RFC3339, s); err != nil {
					bad("%v", err)
				}
			} else if want != "date-time" {
				bad("format %v is not known here", want)
			}
		case "description", marker:
		default:
			bad("keyword %q is not known here", key)
		}
	}
	return wrong
}

func typeOf(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case string:
		return "string"
	case float64:
		if v == math.Trunc(v) {
			return "integer"
		}
		return "number"
	case []any:
		return "array"
	}
	return "object"
}
