// Command protoc-gen-apidoc is a plugin of protoc that writes docs/api.md: services, messages and
// enums, with the comments of their .proto files.
package main

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

func main() {
	protogen.Options{}.Run(func(plugin *protogen.Plugin) error {
		plugin.SupportedFeatures = uint64(pluginpb.CodeGeneratorResponse_FEATURE_PROTO3_OPTIONAL)
		var files []*protogen.File
		for _, f := range plugin.Files {
			if f.Generate {
				files = append(files, f)
			}
		}
		_, err := plugin.NewGeneratedFile("api.md", "").Write([]byte(apiPage(files)))
		return err
	})
}

const head = `# gRPC reference

Written by ` + "`make generate`" + ` from the comments in [api/proto](../api/proto). How to call it:
[integrators.md](integrators.md).
`

// apiPage is the page about all files.
func apiPage(files []*protogen.File) string {
	p := &pageWriter{}
	p.WriteString(head)
	for _, f := range files {
		p.WriteString(conventions(f))
	}
	for _, f := range files {
		for _, s := range f.Services {
			p.service(s)
		}
	}
	p.WriteString("\n# Messages\n")
	for _, f := range files {
		for _, m := range f.Messages {
			p.message(m)
		}
	}
	p.WriteString("\n# Enums\n")
	for _, f := range files {
		for _, e := range f.Enums {
			p.enum(e)
		}
	}
	return p.String()
}

// syntaxPath is the place of a file's first statement, whose comment is about the file.
var syntaxPath = protoreflect.SourcePath{12}

// conventions is the comment at the beginning of a file, without its first paragraph, which says
// what the file has.
func conventions(f *protogen.File) string {
	comment := f.Desc.SourceLocations().ByPath(syntaxPath).LeadingComments
	_, comment, _ = strings.Cut(comment, "\n\n")
	if comment == "" {
		return ""
	}
	var b strings.Builder
	b.WriteByte('\n')
	table, empty := false, true
	for line := range strings.Lines(comment) {
		line = strings.TrimPrefix(strings.TrimRight(line, "\n"), " ")
		begins := empty && strings.HasPrefix(line, "    ")
		if empty = line == ""; begins != table && (begins || empty) {
			table = begins
			b.WriteString("```\n")
		}
		b.WriteString(line + "\n")
	}
	if table {
		b.WriteString("```\n")
	}
	return b.String()
}

type pageWriter struct{ strings.Builder }

func (p *pageWriter) service(s *protogen.Service) {
	fmt.Fprintf(p, "\n## %s\n\n%s\n", s.Desc.Name(), text(s.Comments))
	for _, m := range s.Methods {
		fmt.Fprintf(p, "\n### %s.%s\n\n%s → %s%s\n\n%s\n", s.Desc.Name(), m.Desc.Name(),
			link(m.Input.Desc.Name()), stream(m), link(m.Output.Desc.Name()), text(m.Comments))
	}
}

func stream(m *protogen.Method) string {
	if m.Desc.IsStreamingServer() {
		return "a stream of "
	}
	return ""
}

func (p *pageWriter) message(m *protogen.Message) {
	if m.Desc.IsMapEntry() {
		return
	}
	fmt.Fprintf(p, "\n## %s\n\n%s\n", m.Desc.Name(), text(m.Comments))
	for i, f := range m.Fields {
		if i == 0 {
			p.WriteString("\n| field | type | |\n|---|---|---|\n")
		}
		fmt.Fprintf(p, "| `%s` | %s | %s |\n", f.Desc.Name(), typeOf(f), cell(f.Comments))
	}
	for _, inner := range m.Messages {
		p.message(inner)
	}
	for _, e := range m.Enums {
		p.enum(e)
	}
}

func (p *pageWriter) enum(e *protogen.Enum) {
	fmt.Fprintf(p, "\n## %s\n\n%s\n\n| value | number | |\n|---|---|---|\n", e.Desc.Name(), text(e.Comments))
	for _, v := range e.Values {
		fmt.Fprintf(p, "| `%s` | %d | %s |\n", v.Desc.Name(), v.Desc.Number(), cell(v.Comments))
	}
}

// typeOf names the type of a field, with a link to one of this API.
func typeOf(f *protogen.Field) string {
	switch {
	case f.Desc.IsMap():
		return fmt.Sprintf("map of %s to %s", typeOf(f.Message.Fields[0]), typeOf(f.Message.Fields[1]))
	case f.Desc.IsList():
		return "repeated " + typeName(f)
	case f.Desc.HasOptionalKeyword():
		return "optional " + typeName(f)
	}
	return typeName(f)
}

func typeName(f *protogen.Field) string {
	switch {
	case f.Enum != nil:
		return link(f.Enum.Desc.Name())
	case f.Message != nil && f.Message.Desc.ParentFile().Package() == f.Parent.Desc.ParentFile().Package():
		return link(f.Message.Desc.Name())
	case f.Message != nil:
		return string(f.Message.Desc.FullName())
	}
	return strings.ToLower(strings.TrimPrefix(descriptorpb.FieldDescriptorProto_Type(f.Desc.Kind()).String(), "TYPE_"))
}

func link[N ~string](name N) string {
	return fmt.Sprintf("[%s](#%s)", name, strings.ToLower(string(name)))
}

// text is the comment in front of something.
func text(c protogen.CommentSet) string {
	var lines []string
	for line := range strings.Lines(string(c.Leading)) {
		lines = append(lines, strings.TrimSpace(line))
	}
	return strings.Join(lines, "\n")
}

// cell is text for a table.
func cell(c protogen.CommentSet) string {
	return strings.ReplaceAll(strings.ReplaceAll(text(c), "\n", " "), "|", `\|`)
}
